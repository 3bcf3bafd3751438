"""A Vega-Lite specification for the rows of an answer, which any web page can draw."""

import re
from collections.abc import Sequence
from typing import Any

from readonly_sql import Cell

MAX_ROWS = 500  # more marks than these nobody reads, and all of them lie in the session


def chart(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> dict[str, Any] | None:
    """A line over time, bars over anything else; none for what is no chart, or too much for one."""
    if len(rows) > MAX_ROWS:
        return None
    kinds = [{type(row[i]) for row in rows} - {type(None)} for i in range(len(columns))]
    numeric = [i for i, kind in enumerate(kinds) if kind and kind <= {int, float}]
    if not numeric:
        return None
    y = numeric[-1]
    labels = [i for i in range(len(columns)) if i != y]
    drawn = sorted([*labels[:2], y])
    # By position, since two columns of a query may have one name, and a dot means a path to Vega.
    values = [{f"c{i}": row[i] for i in drawn} for row in rows]
    spec: dict[str, Any] = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": values},
    }
    number = {"field": f"c{y}", "type": "quantitative", "title": columns[y]}
    if not labels:
        return {**spec, "mark": "text", "encoding": {"text": number}}
    x = labels[0]
    in_time = all(re.match(r"(19|20)\d\d(-|$)", str(row[x])) for row in rows)
    encoding: dict[str, Any] = {
        "x": {
            "field": f"c{x}",
            "type": "ordinal" if in_time else "nominal",
            "title": columns[x],
            "sort": None,
        },
        "y": number,
    }
    if len(labels) > 1:
        encoding["color"] = {
            "field": f"c{labels[1]}",
            "type": "nominal",
            "title": columns[labels[1]],
        }
    return {**spec, "mark": "line" if in_time else "bar", "encoding": encoding}
