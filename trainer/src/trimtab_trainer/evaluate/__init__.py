"""Evaluations: rows that are asked, scores that are answered, figures with their uncertainty, a report."""
