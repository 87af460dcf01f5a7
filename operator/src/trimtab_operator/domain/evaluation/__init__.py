"""What is particular to Evaluations; `work` decides about them."""

from .kind import EVALUATION

__all__ = ["EVALUATION"]
