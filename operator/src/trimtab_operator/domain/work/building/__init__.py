"""What an attempt consists of: its Job, its names, its queue, the peers of several pods."""
