"""What happened, on disk before it is believed."""
