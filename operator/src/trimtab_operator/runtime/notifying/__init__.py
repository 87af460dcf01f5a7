"""Sends what `domain.notifications` says: queues, requests, and a record of what was delivered."""
