"""Processes, the background loop, the HTTP transport and the clock: everything that touches the operating system."""
