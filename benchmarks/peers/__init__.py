"""
What users would run instead, each in an environment of its own: ``python NAME.py JOB.json`` prints what it did.

The scripts know nothing of the studio; each does as its project's tutorial for LoRA says, on the job's model and rows.
"""
