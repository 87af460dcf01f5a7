"""What differs between groups of rows.

group_figures    every figure by group, and what is known of group gaps
odds             whether a classifier's odds are equalised
counterfactuals  pairs of rows that differ in their group alone
"""
