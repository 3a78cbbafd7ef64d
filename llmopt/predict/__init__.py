"""How long and how fast, before running."""
