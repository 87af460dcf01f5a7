"""What an evaluation found, for people and for the operator; `stage` renders and stores it, `prepare` looks it up.

page             report.html from `results`, with the templates beside it
charts           its pictures, as inline SVG
confusion_table  its confusion matrix, with many labels pooled
wording          figures, intervals and verdicts on them as words
terminal         the outcome as plain text (`__main__` prints it)
outcome_store    results, report and outcome in object storage, written once
"""
