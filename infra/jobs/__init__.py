"""Jobs: flow runs read as jobs, kept alive from inside, changed from outside, and taken up again."""
