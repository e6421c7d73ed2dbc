"""Dress: set the modes and times that are asked for, where files and folders are."""

from __future__ import annotations

import errno
import os

from .._core.attributes import Attributes
from .._core.names import Name
from .._core.states import Signature, signature_of
from .abilities import attributes_of
from .calls import closing, open_file
from .tree import Tree

__all__ = ["dress", "dress_folder"]


def dress(tree: Tree, name: Name, wanted: Attributes, expected: Signature) -> Signature:
    """Sets attributes of the very file that was looked at; another one is left alone.

    Returns:
        The signature that the file has now, or the expected one if that is not there.
    """
    base, above = tree.at(name)
    try:
        with closing(open_file(base, above)) as fd:
            found = os.fstat(fd)
            if signature_of(found) == expected and found.st_nlink == 1:
                return signature_of(tree.abilities.set_attributes(fd, wanted))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        if tree.signature(name) == expected:
            return signature_of(tree.abilities.set_attributes(base, wanted, above))
    return expected


def dress_folder(tree: Tree, name: Name, wanted: Attributes) -> int:
    """Sets attributes of a folder; returns the time that it has now, in nanoseconds."""
    tree.recheck(name)
    fd = tree.folder(name)
    missing = tree.abilities.kept(wanted).missing_in(attributes_of(os.fstat(fd)))
    return tree.abilities.set_attributes(fd, missing).st_mtime_ns
