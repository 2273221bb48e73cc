"""Whether a catalog holds what the index's records and Parquet files hold."""

from __future__ import annotations

import duckdb

from bagindex.catalog import REMAKE, Catalog
from bagindex.standing import Standing
from bagindex.store import IMAGES
from bagindex.text import first_line
from bagindex.views import model_values
from bagindex_schemas import tables


def check(opened: Catalog) -> tuple[int, list[str]]:
    """Compare a catalog with the Parquet files: rows looked at, and what differs."""
    problems = []
    rows = 0
    try:
        problems += _other(opened)
        classes = len(opened.manifest.plan.classes)
        images = "(SELECT * EXCLUDE (label), original_label AS label FROM images)"
        sources = [(images, IMAGES, "images", tables.IMAGES)]
        for record in opened.models.values():
            schemas = {"predictions": tables.predictions(classes), "image_evidence": tables.IMAGE_EVIDENCE}
            for table, schema in schemas.items():
                sources.append((opened.relation(record, table), record.name, table, schema))
        for name, series, table, schema in sources:
            columns = ", ".join(schema.names)
            # A sum, not an exclusive or: two rows that are the same must not cancel out.
            digest = f"SELECT count(*), sum(hash({columns})) FROM"
            made, source = (
                opened.connection.execute(f"{digest} {relation}").fetchall()[0]
                for relation in (name, f"read_parquet({opened.files(series, table)})")
            )
            rows += made[0]
            if made != source:
                problems.append(f"catalog: {table} of {series} is not what the shards hold: {REMAKE}")
    except duckdb.Error as error:
        opened.directory.raise_trouble()
        problems.append(f"catalog: {first_line(error)}: {REMAKE}")
    return rows, problems


def _other(opened: Catalog) -> list[str]:
    """In what a catalog is not the one that would be made now."""
    standing = Standing.of(opened.directory, opened.manifest, opened.models)
    words = standing.words()
    named = [(each.class_id, each.wnid, each.name) for each in opened.manifest.plan.classes]
    models = ", ".join(model_values(record) for record in standing.models) or "NULL"
    other = {
        "classes": opened.rows("SELECT class_id, wnid, name FROM classes ORDER BY 1") != named,
        "models": bool(opened.rows(f"SELECT 1 FROM (FROM models EXCEPT VALUES {models}) LIMIT 1")),
        "visual words": opened.words != words,
        "files": opened.listed != standing.files(words),
    }
    return [f"catalog: its {what} are not those of the index: {REMAKE}" for what in other if other[what]]
