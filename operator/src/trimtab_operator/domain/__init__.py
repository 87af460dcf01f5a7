"""What is decided, and nothing else: pure functions from what was observed to a plan. No I/O, clock or randomness."""
