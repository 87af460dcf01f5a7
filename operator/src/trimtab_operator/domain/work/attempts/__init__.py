"""Attempts: how one is seen, why it waits, how it ended, and who pays."""
