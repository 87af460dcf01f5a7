"""What becomes of each row: its side of the split, its weight, and what is told of the whole."""
