"""Korean as the generators need it: particles, number words, counters."""
