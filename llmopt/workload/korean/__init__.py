"""Korean as it is written and read: particles, number words and counters; numerals and units back to values."""
