"""One file per section of the contract."""
