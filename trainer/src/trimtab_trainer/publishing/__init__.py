"""From weights to an adapter in object storage, once, and back."""
