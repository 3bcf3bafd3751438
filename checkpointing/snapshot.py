"""What LangGraph stores of a DeltaChannel now and then: its whole value, wrapped."""

# LangGraph has no public name for it, and savers have to tell it from a value.
from langgraph.checkpoint.serde.types import _DeltaSnapshot  # pyright: ignore[reportPrivateUsage]

Snapshot = _DeltaSnapshot
