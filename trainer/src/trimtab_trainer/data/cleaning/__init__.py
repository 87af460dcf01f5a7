"""What is taken out before anything is learned from it: blank, invalid and repeated rows, and what is asked later."""
