"""Which configuration next: spaces, proposers, trials, racing, budget."""
