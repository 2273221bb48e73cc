"""Indexes and sources in object stores.

An index there has the same layout as on a disk. A mirror of it in the cache folder is a folder like an index's, in
which every file has its place and its size, and only the blocks that were read: what is small is fetched, of large
tables only ranges are.
"""
