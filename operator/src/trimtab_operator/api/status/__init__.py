"""What a status tells: conditions, every reason, and what `kubectl get` prints."""
