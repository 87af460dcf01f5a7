"""From files of chat, prompt and text rows to packed token sequences, without leaks between the sides.

source (files) -> formats (rows) -> cleaning -> template (text and its supervised spans) -> tokens -> rows (stored
once) -> clusters and split -> packing -> view (stored once per split, length and packing). Nothing here imports torch.
"""

from .view import Sequences, View, load_view, total_steps

__all__ = ["Sequences", "View", "load_view", "total_steps"]
