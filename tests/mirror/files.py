"""The files of a mirror whose ledger a test damages."""

from __future__ import annotations

from tests.support import write

FILES = {"x": b"1", "d/y": b"2", "d/ä\n": b"3"}
INTENTS = [write(name, content, durable=False) for name, content in FILES.items()]
