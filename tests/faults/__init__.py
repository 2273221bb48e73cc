"""Things that go wrong, made to happen on purpose. `python tests/faults/run.py` runs them all, at length; the suite
runs a short part of each.
"""
