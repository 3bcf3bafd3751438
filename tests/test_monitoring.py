"""Row 31: the alert rules and the dashboard ask for metrics and labels that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clew.runtime.telemetry import Telemetry

DOCS = Path(__file__).parents[1] / "docs"
MONITORING = DOCS / "monitoring"


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return group["rules"]


def panels() -> list[dict[str, Any]]:
    return json.loads((MONITORING / "dashboard.json").read_text())["panels"]


ASKED = [rule["expr"] for rule in alerts()] + [
    target["expr"] for panel in panels() for target in panel["targets"]
]


@pytest.mark.parametrize("asked", ASKED)
def test_row_31_what_is_asked_for_exists(asked: str) -> None:
    rows = re.findall(
        r"^\| `(clew_\w+)`(?: \{([\w, ]+)\})? \| (\w+)",
        (DOCS / "metrics.md").read_text(),
        re.MULTILINE,
    )
    labels = {name: set(of.split(", ")) - {""} for name, of, _ in rows}
    for name, _, kind in rows:
        if kind == "histogram":
            labels[f"{name}_bucket"] = labels[name] | {"le"}
    names = re.findall(r"clew_\w+", asked)
    assert names
    for name in names:
        assert name in labels
    wanted = {one for by in re.findall(r"by \(([\w, ]+)\)", asked) for one in by.split(", ")}
    wanted |= set(re.findall(r"(\w+)=~?\"", asked))
    assert wanted <= set[str]().union(*(labels[name] for name in names))
    for name, _, kind in rows:
        if kind == "counter":
            assert not re.search(rf"(?<!\()\b{name}\b", asked), "a counter without its rate"


def test_row_31_each_alert_says_what_it_means() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_row_31_a_dashboard_of_panels_that_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places)) > 10


def test_the_documented_metrics_are_those_of_the_server() -> None:
    # So that the names above are not only written down.
    shown = Telemetry(["echo"]).text().decode()
    for name in ("clew_db_up", "clew_runs_pending", "clew_lease_lost_total"):
        assert f"\n{name} " in shown
