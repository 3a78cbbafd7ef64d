"""What a model is, where its weights are, and whether it fits: read from headers, never by loading."""
