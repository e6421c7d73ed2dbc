"""Connectors with one mistake each, in what they plan; without it, each is its base class."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import cocoindex as coco
from hypothesis import strategies as st

from tests.kit.connectors import Action, Desired, Handler, Output, Question, Shelf

Draw = Callable[[st.SearchStrategy[Any]], Any]


# What it believes


class AnyForAll(Shelf):
    """Leaves a key alone if one of its previous records agrees."""

    def is_settled(self, asked: Question) -> bool:
        return not asked.missing and any(r == self.record(asked.value) for r in asked.previous)


class NewestRecordOnly(Shelf):
    """Believes that the last attempt got through."""

    def is_settled(self, asked: Question) -> bool:
        return super().is_settled(asked._replace(previous=list(asked.previous)[-1:]))


class FlagIgnored(Shelf):
    """Does not ask whether a target state may be missing."""

    def is_settled(self, asked: Question) -> bool:
        return bool(asked.previous) and super().is_settled(asked._replace(missing=False))


class NeverSettles(Shelf):
    """Writes again, whatever is there."""

    def is_settled(self, asked: Question) -> bool:
        return False


class NeverUpdates(Shelf):
    """Never writes a key twice."""

    def is_settled(self, asked: Question) -> bool:
        return not asked.missing and len(asked.previous) == 1


class Looks(Shelf):
    """Looks at the actual state as well, which another writer may have changed."""

    def is_settled(self, asked: Question) -> bool:
        return Shelf.is_settled(self, asked) and self.store.get(asked.key) == asked.value

    def disturb(self, draw: Draw) -> None:
        self.store[draw(self.keys())] = draw(self.values())


class DoesNotLook(Looks):
    """Believes its records, whatever another writer did."""

    def is_settled(self, asked: Question) -> bool:
        return Shelf.is_settled(self, asked)


# Reconcile is pure


class RemembersPlans(Shelf):
    """Plans nothing twice in one process."""

    def handler(self) -> Handler:
        self.planned: dict[str, bytes] = {}
        return super().handler()

    def is_settled(self, asked: Question) -> bool:
        if self.planned.get(asked.key) == asked.value:
            return True
        self.planned[asked.key] = asked.value
        return super().is_settled(asked)


class NumbersDeletions(Shelf):
    """Gives each deletion a number of its own, as the name of a bin would be."""

    bins = itertools.cycle([False, True])

    def deletion(self, key: str) -> Action:
        return Action(key, None, is_new=next(self.bins))


class WritesWhilePlanning(Shelf):
    """Makes room for a key as soon as it plans to write it."""

    def is_settled(self, asked: Question) -> bool:
        self.store.setdefault(asked.key, b"")
        return super().is_settled(asked)


# Records


class LengthOnly(Shelf):
    """Takes values of one length for the same."""

    def record(self, value: bytes) -> object:
        return len(value)


class Digest(Shelf):
    """Remembers a digest."""

    def record(self, value: bytes) -> object:
        return hashlib.sha256(value).hexdigest()


class TruncatedDigest(Digest):
    """Remembers two bits of the digest."""

    def record(self, value: bytes) -> object:
        return hashlib.sha256(value).digest()[0] % 4


class NotStorable(Shelf):
    """Makes records that the engine can't store."""

    def record(self, value: bytes) -> object:
        return lambda: value


class Pair(NamedTuple):
    """A record that the engine loads only with its type."""

    size: int
    content: bytes


class PairHandler(Handler):
    """A handler with the type of its records."""

    def reconcile(
        self, key: coco.StableKey, desired: Desired, previous: Collection[Pair], missing: bool, /
    ) -> Output | None:
        return super().reconcile(key, desired, previous, missing)


class Pairs(Shelf):
    """Keeps records of a type of its own."""

    def handler(self) -> Handler:
        return PairHandler(self)

    def record(self, value: bytes) -> object:
        return Pair(len(value), value)


class PairsWithoutType(Pairs):
    """Gets lists back, since its handler has no type of records."""

    def handler(self) -> Handler:
        return Handler(self)


@dataclass(frozen=True)
class Early:
    """A record of an earlier release."""

    content: bytes


@dataclass(frozen=True)
class Later(Early):
    """The record of a later release, with another field."""

    mode: int = 0


class EarlyHandler(Handler):
    """Reads records as the earlier release did."""

    def reconcile(
        self, key: coco.StableKey, desired: Desired, previous: Collection[Early], missing: bool, /
    ) -> Output | None:
        return super().reconcile(key, desired, previous, missing)


class EarlyRecords(Shelf):
    """Writes the fields that it reads."""

    def handler(self) -> Handler:
        return EarlyHandler(self)

    def record(self, value: bytes) -> object:
        return Early(value)


class FieldNotRead(EarlyRecords):
    """Writes a field that it does not read."""

    def record(self, value: bytes) -> object:
        return Later(value, mode=0o644)
