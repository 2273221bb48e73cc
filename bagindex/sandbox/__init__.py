"""SQL of strangers: a gate that looks at the query, and processes that can be killed which run it.

DuckDB's settings alone hold nobody: a common table expression writes files, a long function hears no interrupt, a
text of brackets keeps the parser busy for long, and errors tell paths. So a stranger's query is read and run in a
worker: a process with nothing in its environment, a limited address space, no way to write a file, a read-only
catalog and a locked configuration, which is killed when its time is over.

- `gate`: what a query may be made of; `functions.txt` lists the functions.
- `state`: what a worker has to know of an index.
- `confine`: what a worker may not do, said to the system.
- `worker`: the process; `process`: its other end. See `bagindex.processes`.
- `pool`: several of them, and who waits for them.
"""
