"""What an adapter is worth beside its base model: measures, how sure they are, and who judges."""
