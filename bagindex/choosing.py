"""Which images a question is about: SQL conditions, the user's own among them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from bagindex.catalog import Catalog
from bagindex.errors import OutdatedError, QueryError
from bagindex.selecting import select_tree
from bagindex.text import first_line
from bagindex_schemas.records import ModelRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Met:
    """The images of which a condition holds, where it was found elsewhere: a stranger's is not run here.

    Attributes:
        condition: the SQL, which is only shown.
        bits: whether it holds of each image, by its id; of those beyond, it does not.
        catalog: the name of the catalog that says so; another may say otherwise.
    """

    condition: str
    bits: bytes
    catalog: str

    @classmethod
    def of(cls, condition: str, image_ids: NDArray[np.integer[Any]], catalog: str) -> Met:
        """From the ids of these images, int [count], and the catalog that they are of."""
        import numpy as np

        met = np.zeros(image_ids.max(initial=-1) + 1, np.bool_)
        met[image_ids] = True
        return cls(condition, np.packbits(met).tobytes(), catalog)

    def __str__(self) -> str:
        """The condition."""
        return self.condition

    @property
    def sql(self) -> str:
        """A condition on image_id that says the same."""
        if not self.bits:
            return "false"
        # A list of a million ids takes DuckDB three seconds to read, these bits a hundredth of one.
        bits = f"from_base64('{base64.b64encode(self.bits).decode()}')::BIT"
        return f"CASE WHEN image_id < {8 * len(self.bits)} THEN get_bit({bits}, image_id::INTEGER) = 1 ELSE false END"


def images_of(
    catalog: Catalog, model: ModelRecord, conditions: Sequence[str], where: str | Met | None, predictions: bool
) -> str:
    """SQL for the ids of the images of which some conditions hold.

    Args:
        catalog: the index.
        model: whose predictions.
        conditions: ours, on `label` and, where `predictions` says that they need it, `predicted`.
        where: the user's, on the columns of `images`, `predicted`, `predicted_name` and `probability`; or what was
            found of it.

    Raises:
        QueryError: `where` is no SQL condition.
        OutdatedError: it was found of another state of the index.
    """
    # Planning and running a join takes as long as finding the patches: only those that are needed.
    source = "images"
    if isinstance(where, Met):
        if where.catalog != catalog.file.name:
            raise OutdatedError("the index has changed since the images were found of which --where holds: ask again")
        conditions, where = [*conditions, where.sql], None
    if where or predictions:
        source += f" JOIN {catalog.relation(model, 'predictions')} USING (image_id)"
    if where:
        _check_condition(catalog, where)
        # Alone in its WHERE, the condition cannot undo ours, and it sees no columns but these. Materialized: merged
        # with other conditions, DuckDB 2.0 drops one that fails as a constant ('abc') and answers as if it held.
        source = (
            "(WITH met AS MATERIALIZED (SELECT image_id, label, predicted FROM "
            f"(SELECT images.*, predicted, name AS predicted_name, probability FROM {source} "
            f"JOIN classes ON class_id = predicted) WHERE ({where}\n)) FROM met)"
        )
    return f"SELECT image_id FROM {source} WHERE {' AND '.join(conditions) or 'true'}"


def _check_condition(catalog: Catalog, where: str) -> None:
    """Refuse what is no single condition, such as one that closes our parenthesis and goes on."""
    try:
        tree = select_tree(catalog.connection, f"SELECT ({where}\n)")
    except duckdb.Error as error:
        raise QueryError(f"--where {where!r} is no SQL condition: {first_line(error)}") from None
    node = tree["statements"][0]["node"] if tree else {}
    if len(node.get("select_list", [])) != 1 or node.get("from_table", {}).get("type") != "EMPTY":
        raise QueryError(f'--where takes one SQL condition, such as "width > 500", not {where!r}')


def rows(catalog: Catalog, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """The rows of a query that may have a user's condition in it; of the parameters, those are passed that it names.

    Raises:
        QueryError: it fails.
    """
    used = {name: value for name, value in parameters.items() if f"${name}" in sql}
    try:
        with catalog.reading():
            return catalog.connection.execute(sql, used).fetchall()
    except duckdb.Error as error:
        text = first_line(error)
        if "Binder Error" in text:
            text += (
                "; --where knows the columns of `images` (image_id, path, label, label_name, width, height, …), "
                "predicted, predicted_name and probability"
            )
        raise QueryError(f"the question cannot be answered: {text}") from None
