"""The two faces over HTTP: the Agent Server protocol and the sessions API. No SQL here."""
