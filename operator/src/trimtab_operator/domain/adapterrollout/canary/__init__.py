"""Whether the canary is worse than what was served: counts, tests, and the decision."""
