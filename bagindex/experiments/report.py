"""All experiments on one page, in one file, without a script and with nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bagindex.experiments import writing
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.figures.page import document, escape, facts

if TYPE_CHECKING:
    import pyarrow as pa

    from bagindex.experiments.running import LeftOut

_ROWS = 12
"""Rows of a longer table that stand on the page; the files have all."""
_DPI = 150
"""Enough for a screen; the files have more."""
_CELL = 60
"""Characters of a cell."""


def render(
    setting: Setting, outcomes: Sequence[Outcome], left_out: Sequence[LeftOut], missing: Sequence[str] = ()
) -> str:
    """The page.

    Args:
        setting: what the experiments were given.
        outcomes: what came out of those that were run.
        left_out: those that were not, and why.
        missing: networks and predictions that could not be had, and why.
    """
    parts = [
        _head(setting, outcomes),
        _summary(outcomes),
        _missing(left_out, missing),
        *map(_part, outcomes),
        _environment(),
    ]
    return document(f"The paper's experiments on {setting.index.name}", "".join(parts))


def _head(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    seconds = sum(each.seconds for each in outcomes)
    models = ", ".join(setting.models)
    return (
        f"<h1>The paper's experiments on {escape(setting.index.name)}</h1>\n"
        "<p>The experiments of Brendel and Bethge, <i>Approximating CNNs with Bag-of-local-Features models works "
        "surprisingly well on ImageNet</i> (ICLR 2019), on an index.</p>\n"
        + facts(
            [
                ("images", f"{len(setting.image_ids):,} of {setting.catalog.manifest.source.name}"),
                ("classes", f"{len(setting.classes):,}"),
                ("models", models),
                ("compared with", ", ".join([*setting.against, *(each.name for each in setting.predictions)]) or "–"),
                ("device", setting.device),
                ("seed", setting.seed),
                ("time", f"{seconds:,.0f} s"),
            ]
        )
        + "\n"
    )


def _summary(outcomes: Sequence[Outcome]) -> str:
    """The paper's figures beside ours, of all experiments."""
    rows = [(outcome, each) for outcome in outcomes for each in outcome.beside]
    if not rows:
        return ""
    if any(each.comparable for _, each in rows):
        intro = "Where a row is not comparable with the paper's, its experiment below says why."
    else:
        intro = "None of these is comparable with the paper's figure: each experiment below says why."
    body = "".join(
        f'<tr><td><a href="#{escape(outcome.experiment)}">{escape(each.quantity)}</a></td>{_beside(each)}</tr>\n'
        for outcome, each in rows
    )
    return f'<section class="part">\n<h2>Beside the paper</h2>\n<p>{intro}</p>\n{_table_of_beside(body)}</section>\n'


def _table_of_beside(body: str) -> str:
    heads = ("", "the paper", "here", "comparable", "where in the paper")
    head = "".join(f"<th>{each}</th>" for each in heads)
    return f'<div class="wide"><table class="beside">\n<tr>{head}</tr>\n{body}</table></div>\n'


def _beside(each: Beside) -> str:
    unit = f" {each.unit}" if each.unit else ""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}{unit}"

    mark = "yes" if each.comparable else "no"
    return f"<td>{number(each.paper)}</td><td>{number(each.ours)}</td><td>{mark}</td><td>{escape(each.where)}</td>"


def _missing(left_out: Sequence[LeftOut], missing: Sequence[str]) -> str:
    items = [
        *(
            f"<b>{escape(each.experiment.name)}</b> ({escape(each.experiment.section)}): {escape(each.why)}"
            for each in left_out
        ),
        *(f"not compared with {escape(each)}" for each in missing),
    ]
    if not items:
        return ""
    lines = "".join(f"<li>{each}</li>\n" for each in items)
    return f'<section class="part">\n<h2>Left out</h2>\n<ul>\n{lines}</ul>\n</section>\n'


def _part(outcome: Outcome) -> str:
    from bagindex.experiments.catalogue import EXPERIMENTS

    experiment = EXPERIMENTS[outcome.experiment]
    reasons = dict.fromkeys(each.why for each in outcome.beside if each.why)
    remarks = [*(f"Not comparable with the paper's: {each}." for each in reasons), *outcome.remarks]
    about = f"{experiment.title}: {experiment.section}. Took {outcome.seconds:.1f} s."
    said = "".join(f"<p>{escape(each)}</p>\n" for each in remarks)
    figures = "".join(_figure(outcome, name) for name in outcome.figures)
    tables = "".join(_table(outcome, name, table) for name, table in outcome.tables.items())
    return (
        f'<section class="part" id="{escape(outcome.experiment)}">\n<h2>{escape(outcome.experiment)}</h2>\n'
        f'<p class="faint">{escape(about)}</p>\n'
        f"<p>{escape(outcome.title)}.</p>\n{said}"
        f'<div class="pictures">\n{figures}</div>\n{tables}</section>\n'
    )


def _figure(outcome: Outcome, name: str) -> str:
    data = base64.b64encode(writing.drawn(outcome.figures[name], "png", _DPI)).decode()
    about = escape(f"{outcome.title}: {name}")
    return f'<img alt="{about}" src="data:image/png;base64,{data}">\n'


def _table(outcome: Outcome, name: str, table: pa.Table) -> str:
    rows = table.slice(0, _ROWS).to_pylist()
    head = "".join(f"<th>{escape(each)}</th>" for each in table.column_names)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>\n" for row in rows)
    file = f"{writing.stem(outcome, name)}.csv"
    more = f"{len(rows)} of {len(table):,} rows; all are in " if len(rows) < len(table) else "as "
    return (
        f'<div class="wide"><table class="numbers-of">\n<tr>{head}</tr>\n{body}</table></div>\n'
        f'<p class="faint">{more}{escape(file)}</p>\n'
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= _CELL else f"{text[: _CELL - 1]}…")


def _environment() -> str:
    return f'<section class="part">\n<h2>Computed with</h2>\n{facts(list(writing.environment().items()))}\n</section>\n'
