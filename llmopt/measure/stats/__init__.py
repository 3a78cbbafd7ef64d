"""Intervals, tests and verdicts: what numbers allow to be said. Import the file you need: none loads the others."""
