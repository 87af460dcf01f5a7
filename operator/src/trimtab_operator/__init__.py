"""Trimtab's operator: api (what users write) < domain (what is decided) < runtime (all input and output)."""
