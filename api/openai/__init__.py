"""OpenAI's fine-tuning API, spoken over the studio's own jobs: what its objects look like, and how they are made."""
