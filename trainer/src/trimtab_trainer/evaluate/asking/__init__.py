"""The models and what they answer; `stage` calls everything here, for the target and then for the baseline.

models       one base model in memory, the adapters on it one after the other
adapters     published adapters, fetched and held to what was prepared for
likelihoods  summed log-likelihoods of token sequences
generation   answers written by a model
batching     both of these in batches that fit into memory
score_store  what one model made of one task, under the digest of all that decides it
"""
