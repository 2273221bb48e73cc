"""Exact accounts of an index: what makes a decision, and what becomes of it when something is taken away."""
