"""Files on the volume: adapters, whether their numbers are sound, and the base model."""
