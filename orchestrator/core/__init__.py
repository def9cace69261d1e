"""The pure core: nouns and decisions. No clock, no I/O, no environment, no randomness."""
