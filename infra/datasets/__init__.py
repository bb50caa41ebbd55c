"""Data sets that users have stored: where they lie, who uses them, what they look like."""
