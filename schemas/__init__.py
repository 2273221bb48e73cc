"""What an index looks like from outside: Arrow schemas, SQL views and the JSON records beside them.

Nothing here imports torch, so that readers of an index stay light.
"""
