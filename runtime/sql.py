"""The statements of this package by name: `queries["create_session"]`."""

from clew.checkpointing.sql import Queries

queries = Queries("clew.runtime.queries")
