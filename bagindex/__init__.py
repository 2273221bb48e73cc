"""bagindex: which local image evidence does a model decide on?

from bagindex import Index

index = Index.open("imagenet-val")
index.top_patches("tench", wrong_class=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bagindex.errors import BagindexError

if TYPE_CHECKING:
    from bagindex.index import Index
    from bagindex.models.finding import register_model
    from bagindex.models.interface import PatchModel
    from bagindex.sources.items import Items

__version__ = "0.2.0"
"""The version, of which README says under Changes what it brought."""

__all__ = ["BagindexError", "Index", "Items", "PatchModel", "__version__", "register_model"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: the processes that decode pictures, which are many, need little of the rest.
    if name == "Index":
        from bagindex.index import Index

        return Index
    if name == "PatchModel":
        from bagindex.models.interface import PatchModel

        return PatchModel
    if name == "register_model":
        from bagindex.models.finding import register_model

        return register_model
    if name == "Items":
        from bagindex.sources.items import Items

        return Items
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
