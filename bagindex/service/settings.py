"""How the service is run."""

from __future__ import annotations

from dataclasses import dataclass, field

from bagindex.service.access import Access


@dataclass(frozen=True)
class Settings:
    """How the service is run.

    Attributes:
        access: who may ask.
        sql: whether SQL is answered.
        threads: questions that are answered at a time.
        queue: how many more may wait.
        slow_threads, slow_queue: the same for figures and for what a model must compute.
        requests: requests under way at a time, those that wait with them.
        uploads: of these, those with a picture.
        sql_workers, sql_queue: queries of one index at a time, and how many more may wait.
    """

    access: Access = field(default_factory=Access)
    sql: bool = True
    threads: int = 4
    queue: int = 256
    slow_threads: int = 2
    slow_queue: int = 32
    requests: int = 512
    uploads: int = 32
    sql_workers: int = 2
    sql_queue: int = 64
