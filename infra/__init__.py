"""The outside world: every socket, disk and secret of the server."""
