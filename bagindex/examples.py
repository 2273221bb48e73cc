"""What can be asked in SQL: what the tables hold, and questions to begin with, about the index's own classes."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from bagindex.catalog import Catalog
from bagindex.query import run
from bagindex.sql_names import literal
from bagindex_schemas.about import RELATIONS
from bagindex_schemas.records import ModelRecord

_MANY = 5_000
"""Of more images than that, questions about every patch take longer than strangers have: they ask about the first."""


@dataclass(frozen=True)
class Example:
    """A question. In `sql`, `{a}` and `{b}` stand for classes (a is most often taken for b), `{image}` for an image.

    `{only}` is what keeps to one model of several, after a condition; `{patches}` what keeps to the first images;
    `{model}` the model's column, where there are several.

    Attributes:
        title, about: for people.
        needs: tables, views and macros.
        labels: whether it is about images with labels (true), for indexes without any (false), or for both (None).
        classes: how many classes there must be.
    """

    title: str
    about: str
    sql: str
    needs: Set[str]
    labels: bool | None = None
    classes: int = 1


EXAMPLES = (
    Example(
        "Accuracy by class",
        "How many images each class has, and how many of them are predicted right; the worst first.",
        "SELECT label_name, count(*) AS images, count(*) FILTER (correct) AS correct,\n"
        "       round(count(*) FILTER (correct) / count(*), 3) AS accuracy\n"
        "FROM predictions\nWHERE label IS NOT NULL{only}\nGROUP BY label_name\nORDER BY accuracy, label_name",
        {"predictions"},
        True,
    ),
    Example(
        "What the model predicts",
        "How often each class is predicted, and how sure the model is of it.",
        "SELECT predicted_name, count(*) AS images, round(avg(probability), 3) AS mean_probability\n"
        "FROM predictions\nWHERE true{only}\nGROUP BY predicted_name\nORDER BY images DESC, predicted_name",
        {"predictions"},
        False,
    ),
    Example(
        "The most frequent confusions",
        "What is taken for what.",
        "SELECT label_name, predicted_name, images, round(share_of_label, 3) AS share_of_label\n"
        "FROM confusions()\nWHERE true{only}\nORDER BY images DESC, label_name, predicted_name\nLIMIT 20",
        {"confusions"},
        True,
    ),
    Example(
        "The least sure right answers",
        "Images that the model gets right, but only just.",
        "SELECT image_id, label_name, probability{model}\n"
        "FROM predictions\nWHERE correct{only}\nORDER BY probability, image_id\nLIMIT 24",
        {"predictions"},
        True,
    ),
    Example(
        "The least sure answers",
        "Images of which the model is least sure.",
        "SELECT image_id, predicted_name, probability{model}\n"
        "FROM predictions\nWHERE true{only}\nORDER BY probability, image_id\nLIMIT 24",
        {"predictions"},
        False,
    ),
    Example(
        "The surest mistakes",
        "Images that the model gets wrong without a doubt: perhaps their labels are wrong.",
        "SELECT image_id, label_name, predicted_name, probability{model}\n"
        "FROM predictions\nWHERE NOT correct{only}\nORDER BY probability DESC, image_id\nLIMIT 24",
        {"predictions"},
        True,
    ),
    Example(
        "Right at the second guess",
        "Wrong images whose label comes next after the prediction.",
        "SELECT image_id, label_name, predicted_name, probability{model}\n"
        "FROM predictions\nWHERE NOT correct AND top5[2] = label{only}\n"
        "ORDER BY probability, image_id\nLIMIT 24",
        {"predictions"},
        True,
        2,
    ),
    Example(
        "The strongest patches of a class in images of others",
        "Where the model sees the class, and nobody else does.",
        "SELECT patch_id, image_id, label_name, max_logit{model}\n"
        "FROM image_evidence\nWHERE class = {b} AND NOT correct{only}\nORDER BY max_logit DESC, patch_id\nLIMIT 24",
        {"image_evidence"},
        True,
    ),
    Example(
        "The strongest patches of a class",
        "Of each image the patch with most evidence.",
        "SELECT patch_id, image_id, max_logit{model}\n"
        "FROM image_evidence\nWHERE class = {b}{only}\nORDER BY max_logit DESC, patch_id\nLIMIT 24",
        {"image_evidence"},
        False,
    ),
    Example(
        "Decided by one patch",
        "Images whose strongest patch is furthest above their mean: little else speaks for the prediction.",
        "SELECT patch_id, image_id, class, max_logit, mean_logit{model}\n"
        "FROM image_evidence\nWHERE class_id = predicted{only}\n"
        "ORDER BY max_logit - mean_logit DESC, patch_id\nLIMIT 24",
        {"image_evidence"},
    ),
    Example(
        "Where in the image a class's evidence lies",
        "The mean evidence at each place of the grid.",
        'SELECT "row", col, round(avg(logit), 3) AS mean_logit\n'
        'FROM evidence_of({a})\nWHERE true{only}{patches}\nGROUP BY "row", col\nORDER BY "row", col',
        {"evidence_of"},
    ),
    Example(
        "Patches that speak for two classes at once",
        "The weaker of the two logits is what counts.",
        "SELECT patch_id, image_id, logit_a, logit_b, least(logit_a, logit_b) AS weaker{model}\n"
        "FROM margin({a}, {b})\nWHERE true{only}{patches}\nORDER BY weaker DESC, patch_id\nLIMIT 24",
        {"margin"},
        classes=2,
    ),
    Example(
        "The words of a class",
        "Visual words by what they add to the mean logit of the class's images, each with its most typical patch.",
        "SELECT c.word, round(c.right_contribution, 3) AS contribution, round(c.right_share, 4) AS share,\n"
        "       round(c.right_mean, 2) AS mean, w.typical[1] AS patch_id{word_model}\n"
        "FROM words_of({a}) AS c JOIN words AS w ON w.model = c.model AND w.word = c.word\n"
        "WHERE true{word_only}\nORDER BY c.right_contribution DESC, c.word\nLIMIT 20",
        {"words_of", "words"},
        True,
    ),
    Example(
        "One decision, word by word",
        "What each visual word of an image adds to its logit for a class.",
        "SELECT word, patches, round(mean_logit, 2) AS mean_logit, round(contribution, 4) AS contribution\n"
        "FROM image_words({image})\nWHERE class = {b}{only}\nORDER BY contribution DESC, word\nLIMIT 20",
        {"image_words"},
    ),
)
"""From simple to surprising. What has a patch or an image in its rows calls it patch_id or image_id."""


def tables(catalog: Catalog) -> dict[str, Any]:
    """The tables, views and macros that a catalog has, and examples that it can answer; see `Index.tables`."""
    stored, macros = catalog.names()
    views = list(catalog.view_bodies())
    a, b, image = _subjects(catalog)
    names = {"a": literal(a or ""), "b": literal(b or a or ""), "image": str(image or 0)}
    found: list[dict[str, Any]] = []
    for name, about in RELATIONS.items():
        kind = "table" if name in stored else "view" if name in views else "macro" if name in macros else None
        if kind is None:
            continue
        call = None if about.call is None else about.call.format_map(names)
        rows = run(catalog, f"DESCRIBE FROM {call or name}").to_dicts()
        columns = [
            {
                **{"name": row["column_name"], "type": row["column_type"]},
                "about": about.columns.get(row["column_name"], ""),
            }
            for row in rows
        ]
        told = {"name": name, "kind": kind, "about": about.about, "columns": columns}
        found.append(told if call is None else {**told, "call": call})
    has: Set[str] = {each["name"] for each in found}
    return {"tables": found, "examples": [] if image is None else _examples(catalog, has, names, 1 if b is None else 2)}


def _subjects(catalog: Catalog) -> tuple[str | None, str | None, int | None]:
    """Two classes of which the first is most often taken for the second, and an image; else the classes that are
    predicted most, and the first image. None where there are too few.
    """
    record = _model(catalog)
    predictions = catalog.relation(record, "predictions")
    classes = [each.name for each in catalog.manifest.plan.classes]
    confused = catalog.first_row(
        f"""SELECT label, predicted, min(image_id) FROM images JOIN {predictions} USING (image_id)
        WHERE label <> predicted GROUP BY ALL ORDER BY count(*) DESC, label, predicted LIMIT 1"""
    )
    if confused is not None:
        return classes[confused[0]], classes[confused[1]], confused[2]
    often = catalog.rows(f"SELECT predicted FROM {predictions} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 2")
    chosen = list(dict.fromkeys([*(row[0] for row in often), *range(min(2, len(classes)))]))
    first = catalog.first_row("SELECT min(image_id) FROM images")
    return (
        classes[chosen[0]] if chosen else None,
        classes[chosen[1]] if len(chosen) > 1 else None,
        None if first is None else first[0],
    )


def _model(catalog: Catalog) -> ModelRecord:
    return next(iter(catalog.models.values()))


def _examples(catalog: Catalog, has: Set[str], names: dict[str, str], classes: int) -> list[dict[str, str]]:
    counted = catalog.rows("SELECT count(*), count(label) FROM images")[0]
    record = _model(catalog)
    one = literal(record.name)
    several = len(catalog.models) > 1
    filled = {
        **names,
        "model": ", model" if several else "",
        "only": f" AND model = {one}" if several else "",
        "word_model": ", c.model" if several else "",
        "word_only": f" AND c.model = {one}" if several else "",
        "patches": f" AND patch_id < {_MANY * record.grid.patches}" if counted[0] > _MANY else "",
    }
    return [
        {"title": each.title, "about": each.about, "sql": each.sql.format_map(filled).replace("\nWHERE true\n", "\n")}
        for each in EXAMPLES
        if each.needs <= has and each.classes <= classes and each.labels in (None, counted[1] > 0)
    ]
