"""Tells a tracker what a run measures: while it goes on, by interval, and after its end. Nothing waits for it."""
