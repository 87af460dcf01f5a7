"""Labels and choices.

predictions    which one a model gave
label_metrics  accuracy, precision, recall and F1
confusion      right against predicted labels
label_rates    how often each label is said where it is right and where it is not
calibration    how far the probabilities of labels and choices can be believed
"""
