"""Processes of our own that do one thing, are spoken to in frames, and may be killed at any moment.

Not multiprocessing: it runs the user's script again in each process, or forks one that has threads.

- `child`: such a process from outside: started, and killed.
- `frames`: how it is spoken to.
- `inside`: what it sees to by itself.
"""
