"""A merged model as one GGUF file, which llama.cpp and what is built on it run on small machines.

`families` says which models can be written and what each of their tensors becomes, `vocabulary` the same of their
tokenizers; both refuse by name what they do not know, before anything is computed. `file` writes, tensor by tensor.
The format and its keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names come from the package `gguf`.
"""
