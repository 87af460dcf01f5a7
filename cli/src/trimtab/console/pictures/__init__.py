"""Pictures as SVG: numbers in, shapes out. Pure. They have no colours of their own; the style sheet gives them."""
