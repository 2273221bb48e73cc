"""Processes that decode pictures: a codec that crashes or hangs on one costs that picture, and nothing else.

- `worker`: the process; `process`: its other end.
- `pool`: those that there are, for all of this process's threads.
"""
