"""What is asked: datasets, prompts and their forms."""
