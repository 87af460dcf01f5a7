"""What answers are worth, row by row, and the figures that sums over rows give; `comparison` calls it. Pure numpy.

measure       one metric of one model: statistics of rows whose sums suffice for its figures
texts         what a text says: a label, a number, a refusal, and how near it is to another text
structured    answers with a form: JSON and its schemas, tool calls
labels        which label or choice was given: by likelihood or in words, right or wrong, how often, how surely
groups        every figure by group, equal odds, pairs that differ in their group alone
pair_metrics  of a chosen and a rejected answer
metrics       every metric of a task, from all of these
row_by_row    wins and losses against the baseline, histograms, examples to look at
"""
