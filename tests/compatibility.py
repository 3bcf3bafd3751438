"""`python -m tests.compatibility`: write the table of docs/compatibility.md from what the tests
claim and are held to: each method of the official clients, the endpoint it reaches, and the test
that shows it."""

import re
from collections import defaultdict
from pathlib import Path

from tests.sdk import official

HERE = Path(__file__).parent
FILE = HERE.parent / "docs" / "compatibility.md"
JS = HERE / "js" / "node_modules" / "@langchain" / "langgraph-sdk" / "dist" / "client"

BEGIN, END = "<!-- the table begins -->\n", "<!-- the table ends -->\n"
# What only the JavaScript client has. It sends what no server answers.
JS_ALONE = {"threads.patchState"}


def table() -> str:
    """The rows, in the order of the clients' parts and methods."""
    shown: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module, test, claim in official.claims():
        shown[claim.method][claim.endpoint].append(f"sdk/{module}.py::{test}")
    called = javascript()
    lines = ["| Python | JavaScript | endpoint | shown by |", "|---|---|---|---|"]
    for part in official.PARTS:
        for method in sorted(m for m in official.methods("async") if m.startswith(f"{part}.")):
            for endpoint, tests in shown[method].items():
                held = tests[:1] + (["test_js.py"] if camel(method) in called else [])
                by = ", ".join(f"`{test}`" for test in held)
                lines.append(f"| `{method}` | `{camel(method)}` | `{endpoint}` | {by} |")
    return "\n".join(lines) + "\n"


def camel(method: str) -> str:
    """The method's name in JavaScript."""
    return re.sub(r"_(\w)", lambda match: match[1].upper(), method)


def javascript() -> set[str]:
    """The methods that the tests of the JavaScript client call."""
    text = (HERE / "js" / "client.mjs").read_text()
    parts = "|".join(official.PARTS)
    return {found[1] for found in re.finditer(rf"\b((?:{parts})\.\w+)\(", text)}


def page() -> str:
    """The page with its table as it should be; the rest of it is written by hand."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    FILE.write_text(page())
