"""What answers are worth, row by row, and the figures that sums over rows give; `comparison` calls it. Pure numpy.

parsing        the label or the number that a text answers (`preparing` reads right answers by the same rules)
text_metrics   generated texts against references, by the libraries that define the metrics
metrics        every metric of a task as statistics by row and a function of their sums
confusion      right against predicted labels
row_by_row     wins and losses against the baseline, histograms, examples to look at
group_figures  every figure by group, and what is known of group gaps
"""
