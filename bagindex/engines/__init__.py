"""Where the shards of a build are computed: in this process, or in others, on this machine or many.

Shards know nothing of each other, and one function makes one (`bagindex.pipeline.Pipeline.run`), whatever the engine.
An engine computes them anywhere and in any order; it hands them over in the order of their numbers, as if one had come
after the other, and only the build that holds the index's lock commits them. So an index is in the same states, and
comes to the same bytes, under every engine.

- `engine`: what a build asks of an engine, and what is common to them.
- `local`: this process.
- `schedule`: which shard is whose turn, and which were lost too often (pure).
- `layout`: how many workers a cluster has room for (pure).
- `options`: what a person says of it.
- `worker`: what runs in each process of Ray's; `probe`: what ties it to its build.
- `actors`: Ray's actors, each with such a worker.
- `ray`: Ray.
"""
