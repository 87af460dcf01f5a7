"""Tells a tracker what a run measured, after its end. Nothing waits for it."""
