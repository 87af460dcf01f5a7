"""Evaluations: an adapter and its baseline are asked the same rows, and what they answer becomes figures.

Stages, which `__main__` calls one after the other, in a cluster each in a pod of its own:

prepare     on a processor and without torch: adapters verified, rows read, tokenised, clustered and stored
stage       with the models: every task asked, the scores stored, compared, published
judge       where an endpoint judges, after that: the stored answers judged, compared, published; without torch

Between them pass `rows` (what is asked, and the scores that answer it) and `results` (all that was found of it). Then
`comparison` makes of one task's rows and scores what `results` says of it, and `conclusion` of all of them; `memory` is
what asking and the harness do when it runs out. The rest is in folders, by what it does:

preparing   what `prepare` does of it: adapters, questions, tokens, clusters, the store of prepared tasks
asking      models and their answers: likelihoods, generated texts, the store of scores
harness     tasks of lm-evaluation-harness: their files checked, their documents read, the library run
scoring     what each answer is worth: metrics, confusions, rows beside each other, groups. Pure
statistics  what figures of so many rows can tell: resampling, p-values, group gaps. Pure, and knows no rows
judging     answers judged by another model
suites      rows of our own
reporting   report, results and outcome: charts, words, tables, the store of outcomes

import-linter holds these folders to it (`make lint`): who may import whom, and who never sees torch
(only `stage`, asking, `memory` and `harness.running` do).
"""
