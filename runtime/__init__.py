"""What runs graphs: settings, sessions, runs, events. No HTTP here, and no SQL above here."""

import os

# Read once, when langgraph is first imported: from then on a checkpoint can only bring back types
# that a graph declared, never whatever class its bytes name.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
