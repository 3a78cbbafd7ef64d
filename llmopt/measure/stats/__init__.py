"""Intervals, tests and verdicts: what numbers allow to be said."""
