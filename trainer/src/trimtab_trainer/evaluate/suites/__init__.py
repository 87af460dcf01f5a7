"""Rows of our own for evaluations, made from tables: the same bytes on every machine.

forgetting   what a model knew before it was fine-tuned: eight small suites of MultipleChoice rows
"""
