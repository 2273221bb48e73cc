"""Figures as they go into a paper: arrays and words in, matplotlib figures out. Pure functions."""
