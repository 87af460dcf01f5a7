"""Rounds: which object is looked at when, what a decision is asked with, and how its plan is carried out."""
