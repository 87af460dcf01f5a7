"""report.html of a run, published beside its adapter: what it learned from what, how it went, and what it cost.

answers     what base model and adapter answer to a few held-out rows; needs torch
curves      line charts
page        the page
"""
