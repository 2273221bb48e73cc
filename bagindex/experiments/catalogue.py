"""The experiments that there are. Their modules are imported when they are run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bagindex.errors import QueryError
from bagindex.experiments.experiment import Experiment, Needs
from bagindex.text import did_you_mean, near

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        each.name: each
        for each in (
            Experiment("accuracy", "Accuracy by the size of patches", "section 3, Fig. 1B", Needs.STORED),
            Experiment("correlation", "Correlation with other networks' logits", "Fig. 1C", Needs.NETWORKS),
            Experiment("runtime", "Images per second, beside another network's", "section 4.1", Needs.MODEL),
            Experiment("errors", "Accuracy of each class, model against model", "section 4.4, Fig. 7", Needs.STORED),
            Experiment("misclassified", "Images that two networks both get wrong", "Fig. 4", Needs.NETWORKS),
            Experiment(
                "interactions", "How far parts of an image act apart", "section 4.4, Eq. 1, Fig. 6", Needs.MODEL
            ),
            Experiment("thresholding", "Evidence clipped and binarised", "A.1, Fig. A.4", Needs.STORED),
            Experiment("texturise", "Images made into textures", "section 4.3, Fig. 5", Needs.NETWORKS),
            Experiment("scrambling", "Images whose tiles are shuffled", "sections 2 and 4.3", Needs.MODEL),
            Experiment("masking", "What a network decides on masked, by several maps", "Fig. 8, Table 1", Needs.MODEL),
            Experiment("gallery", "Attribution methods beside BagNets' heatmaps", "Fig. A.2", Needs.MODEL),
            Experiment("architecture", "Layers, receptive fields, parameters, FLOPs", "Fig. A.1", Needs.MODEL),
        )
    }
)
"""In the order in which they are run and reported."""


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        QueryError: there is none.
    """
    if name not in EXPERIMENTS:
        hint = did_you_mean(near(name, EXPERIMENTS)) or f"it is one of {', '.join(EXPERIMENTS)}, or all"
        raise QueryError(f"there is no experiment {name!r}: {hint}")
    return EXPERIMENTS[name]
