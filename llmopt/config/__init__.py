"""Settings and model entries: typed, validated at the edge, each value knowing where it came from."""
