"""How it went: the stamping client, load generation, scoring, statistics."""
