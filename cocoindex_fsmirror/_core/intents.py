"""Intents: the desired states that a batch has to reach, one path each. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from .names import ROOT, Name
from .ownership import Policy
from .states import Content, Desired, Signature

__all__ = ["Durability", "Intent"]

Durability: TypeAlias = Literal["batch", "none"]
"""``"batch"`` makes each batch survive a power cut; ``"none"`` leaves that to the system."""


class Intent(msgspec.Struct, frozen=True, gc=False):
    """A path and the state that it should have.

    Attributes:
        name: The path, relative to the root.
        desired: A file, a link, a directory, or absence. A file whose digest is not known yet
            is hashed while it is staged, and never adopted.
        owner: The identity of the owner that asks, a UUID.
        container: The chain of directory targets below the root that declared the
            path, each followed by ``//``; empty for the root itself.
        component: The path of the engine's component that declared the path.
        content: The bytes of a file, or where they are.
        ours: The digests that the engine remembers to have declared for this path; ``b""`` for a
            folder.
        on_conflict: The policy for foreign bytes.
        create_parents: True to make missing parent folders.
        durable: True if the batch has to survive a power cut.
        rival: A path that is declared, too, and can't exist together with this one;
            :data:`ROOT` if there is none.
        source: The signature of the file that is copied, if any later change will show in it.
    """

    name: Name
    desired: Desired
    owner: str
    container: str = ""
    component: str = ""
    content: bytes | Content | None = None
    ours: tuple[bytes, ...] = ()
    on_conflict: Policy = "backup"
    create_parents: bool = True
    durable: bool = True
    rival: Name = ROOT
    source: Signature | None = None

    @property
    def declaration(self) -> tuple[Name, str, str]:
        """The identity of the declaration that asks for the state, or has ended."""
        return self.name, self.owner, self.container

    def __repr__(self) -> str:
        shown = (field for field in self.__struct_fields__ if field != "content")
        return f"Intent({', '.join(f'{field}={getattr(self, field)!r}' for field in shown)})"
