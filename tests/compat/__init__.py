"""`make compat`: one script of requests, the official in-memory server and Clew side by side."""
