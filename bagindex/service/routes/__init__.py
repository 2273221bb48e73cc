"""The routes, by topic; each calls `Index` and nothing else."""
