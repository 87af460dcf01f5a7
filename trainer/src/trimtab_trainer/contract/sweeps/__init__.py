"""Searches: what a user sets, what is recorded of them, and which rows their trials are measured on."""
