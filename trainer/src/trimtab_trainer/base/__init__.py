"""The base model: its files, whether it can be trained, and which of its layers an adapter reaches. No torch."""
