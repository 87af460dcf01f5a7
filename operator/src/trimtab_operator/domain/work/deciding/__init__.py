"""A decision in its two steps: `settle` brings the books up to date, `follow` says what follows from them."""
