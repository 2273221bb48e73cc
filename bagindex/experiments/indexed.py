"""What the models of an index predicted when it was built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.experiments.comparing import other_weights
from bagindex.experiments.experiment import Setting
from bagindex.experiments.predicted import Predicted
from bagindex_schemas.records import ModelRecord


def indexed(setting: Setting, record: ModelRecord) -> Predicted:
    """What a model predicted for the images that count, from the stored predictions."""
    table = setting.index.sql(
        f"""SELECT image_id, predicted, top5, logits FROM predictions
        WHERE model = '{record.name}' AND {setting.chosen} ORDER BY image_id"""
    ).to_arrow()
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    return Predicted(
        name=record.name,
        image_ids=columns["image_id"].to_numpy().astype(np.int64),
        predicted=columns["predicted"].to_numpy().astype(np.int32),
        top5=_matrix(columns["top5"]),
        logits=_matrix(columns["logits"]),
        origin=f"{record.name} of the index",
        published=not other_weights(record),
    )


def of_images(predicted: Predicted, image_ids: NDArray[np.int64]) -> Predicted:
    """The predictions for some of the images, int64 [n], ascending."""
    rows = np.searchsorted(predicted.image_ids, image_ids)
    return Predicted(
        name=predicted.name,
        image_ids=image_ids,
        predicted=predicted.predicted[rows],
        top5=predicted.top5[rows],
        logits=None if predicted.logits is None else predicted.logits[rows],
        origin=predicted.origin,
        published=predicted.published,
    )


def _matrix(column: pa.Array) -> NDArray[Any]:
    """A column of lists of one length, [rows, length]."""
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)
