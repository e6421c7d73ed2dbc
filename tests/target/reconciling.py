"""A small universe of tracking records and desired states, and an oracle of skipping."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from cocoindex_fsmirror._core.states import digest_of
from cocoindex_fsmirror._target.records import Record

A, B = b"content A", b"content B, longer"
ONE, TWO = "component/one", "component/two"


def file_record(content: bytes, mode: int | None = None, component: str = ONE) -> Record:
    """Returns the tracking record of a file."""
    return Record("file", digest_of(content), len(content), mode, component)


FILE_A = file_record(A)
FILE_B = file_record(B)
FILE_A_MODE = file_record(A, 0o600)
FILE_A_TWO = file_record(A, component=TWO)
DIR = Record("dir", component=ONE)
UNIVERSE = (FILE_A, FILE_B, FILE_A_MODE, file_record(A, 0o644), FILE_A_TWO, DIR)


@dataclass(frozen=True)
class Wanted:
    """A desired state, in the plainest words: ``content`` is ``None`` unless it is a file."""

    kind: str
    content: bytes | None = None
    mode: int | None = None
    component: str = ONE


DESIRED = (
    Wanted("absent"),
    Wanted("file", A),
    Wanted("file", B),
    Wanted("file", A, 0o600),
    Wanted("file", A, component=TWO),
    Wanted("dir"),
)

Previous = tuple[Record, ...]


def histories() -> Iterator[tuple[Previous, bool, bool]]:
    """Lists up to three previous records in every order, may-be-missing, drifted."""
    for count in range(4):
        for previous in itertools.product(UNIVERSE, repeat=count):
            for may_be_missing, drifted in itertools.product((False, True), repeat=2):
                yield previous, may_be_missing, drifted


def may_skip(wanted: Wanted, previous: Previous, may_be_missing: bool, drifted: bool) -> bool:
    """True if every state that may be the truth is the desired one; the oracle.

    The possible truths are listed one by one, as plain tuples; what nobody ever
    recorded (no previous record) may be anything.
    """
    truths: list[object] = [(p.kind, p.digest, p.mode, p.component) for p in previous]
    if may_be_missing:
        truths.append("missing")
    if drifted or not previous:
        truths.append("anything")
    digest = b"" if wanted.content is None else digest_of(wanted.content)
    return truths == [(wanted.kind, digest, wanted.mode, wanted.component)] * len(truths)
