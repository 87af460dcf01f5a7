"""From a base model and an adapter to one model that needs neither: what an engine without adapters, or a device at
the edge, runs.

`stage.export` is the whole of it; `training_weights` gives the base's weights as training saw them, `adaptation` what
the adapter adds to a layer, `tensor_files` reads and writes safetensors one tensor at a time, `merge` joins them.
"""
