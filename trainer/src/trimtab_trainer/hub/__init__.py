"""Models and data sets of a hub, mirrored into the output: the one part of Trimtab that asks anything but storage.

`mirror` is the stage; `client` the hub at a commit, over huggingface_hub; `refusal` its errors as named reasons.
"""
