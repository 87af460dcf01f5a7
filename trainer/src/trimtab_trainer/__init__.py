"""Trimtab's trainer: prepares data, trains a QLoRA adapter, checkpoints and publishes it."""
