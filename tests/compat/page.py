"""`python -m tests.compat.page`: write what `make compat` found into docs/compatibility.md."""

from pathlib import Path

from tests.compat.divergences import TOPICS, Divergence

FILE = Path(__file__).parents[2] / "docs" / "compatibility.md"
BEGIN, END = "<!-- found by make compat -->\n", "<!-- the end of what it found -->\n"


def section() -> str:
    lines: list[str] = []
    for topic, rows in TOPICS.items():
        lines += [f"### {topic}", "", *(_line(row) for row in rows), ""]
    return "\n".join(lines)


def _line(row: Divergence) -> str:
    paths = ", ".join(f"`{path}`" for path in row.path.split(" | "))
    steps = ", ".join(f"`{step}`" for step in row.step.split(" | ") if step != "*")
    return f"- {row.reason} ({paths}{' in ' if steps else ''}{steps})"


def page() -> str:
    """The page with this section as it should be."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + section() + END + after


if __name__ == "__main__":
    FILE.write_text(page())
