"""Searches: which point comes next."""
