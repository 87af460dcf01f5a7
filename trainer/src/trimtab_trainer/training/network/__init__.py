"""The network that is trained: the frozen base, the adapter on it, attention over packed rows."""
