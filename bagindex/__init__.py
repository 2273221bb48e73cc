"""bagindex: which local image evidence does a model decide on?

from bagindex import Index

index = Index.open("imagenet-val")
index.top_patches("tench", wrong_class=True)
"""

from importlib.metadata import version

from bagindex.errors import BagindexError
from bagindex.index import Index

__all__ = ["BagindexError", "Index", "__version__"]
__version__ = version("bagindex")
