"""From prepared rows to trained weights: the loop, what it is made of, and what makes it go on after a kill."""
