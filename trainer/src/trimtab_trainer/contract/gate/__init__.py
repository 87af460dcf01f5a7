"""The gate: thresholds held against figures, and the verdict in words."""
