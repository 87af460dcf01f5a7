"""What this pod is to have, and the rounds that make it true: shares, the way of a revision, where aliases point."""
