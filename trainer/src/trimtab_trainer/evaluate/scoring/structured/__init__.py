"""Answers with a form.

schemas             JSON and the schemas that it is checked against, bounded
tool_calls          calls read from what a model wrote, checked and compared
structured_metrics  their figures by row, and those of a pattern
"""
