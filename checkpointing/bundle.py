"""A session in one file, and back from it under another id and owner: lossless, all or nothing.

The file is JSON lines (`chain`): a header, then lineages, items and checkpoints with their
writes, then an end; docs/bundle.md tells the fields. Values travel as they are stored, in base64,
so neither side needs the classes of the user's graph. Encrypted values travel in clear.
"""

from clew.checkpointing.packing import VERSION, dump
from clew.checkpointing.unpacking import Imported, load

__all__ = ["VERSION", "Imported", "dump", "load"]
