"""What trackers are asked over HTTP, one module each: runs that are there, ours or not."""
