"""Tasks of lm-evaluation-harness, without running any code of theirs and without a network.

yaml_files  the YAML of a folder, read as plain values
rules       what a task may say: an allow-list of keys, values and templates
files       one task of a folder with its data files, checked by both of these
documents   which of its documents are asked, and in what groups
offline     refuses every connection while files are read or a task is run
running     the library itself, on the model that is loaded: the only module here that imports torch

`prepare` calls `files` and `documents`, `stage` calls `running`.
"""
