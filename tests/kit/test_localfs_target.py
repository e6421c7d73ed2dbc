"""Defects of the target half of ``localfs`` that the kit finds, and rules that it keeps.

Of the table in the design, four rows are out of the kit's scope. *Power cut*: a process
that dies leaves what it wrote in the kernel's memory, and nothing here takes that away.
*Preview prints contents*: it shows an action, and never calls the sink. *The state
database was lost*: in the kit the engine forgets only together with what is there.
*Neighbours of a bad file are not written*: an update that failed may leave anything, as
long as the next one that finishes puts it right.
"""

from __future__ import annotations

from typing import Literal

import pytest
from cocoindex.connectors.localfs import _target as localfs

from cocoindex_fsmirror.testing import Disturb, Fault, Rule, check_target
from tests.kit.others import DIES, Defect, update
from tests.kit.others_localfs import (
    PLACE,
    Directories,
    Edited,
    EmptyFolders,
    FilesAndFolders,
    LinkToAFile,
    LinkToAFolder,
    LocalFiles,
    MendedFiles,
    NameThatLeadsOut,
    NastyNames,
    Nested,
    SharedDirectories,
    TwoSpellings,
    file,
    folder,
)


@pytest.fixture(autouse=True)
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the guard that our own target puts into ``localfs``."""
    name = "_execute_entry_action"
    function = getattr(localfs, name)
    monkeypatch.setattr(localfs, name, getattr(function, "__wrapped__", function))


X, BELOW, FOLDER = file(b"x"), file(b"x", parents=True), folder()
IN_PLACE = (PLACE.key, "d")
INSIDE = Fault("dies", "inside", step=2)
TORN = "'a' shows b''; it was absent and should become b'x'"

DEFECTS = {
    "a file is torn when the process dies before it is written": Defect(
        LocalFiles,
        Rule.ATOMIC,
        TORN,
        [update({"a": X}, INSIDE)],
        {"atomic": True},
    ),
    "a file is torn when the process really dies": Defect(
        LocalFiles,
        Rule.ATOMIC,
        TORN,
        [update({"a": X}, INSIDE)],
        {"atomic": True, "deaths": "fork"},
    ),
    "what was a file can't become a folder of files": Defect(
        Nested,
        Rule.CONVERGES,
        "apply raised FileExistsError",
        [update({"a": X}), update({"a/b": BELOW})],
    ),
    "two spellings are two keys and one path, and it goes with the first of them": Defect(
        TwoSpellings,
        Rule.CONVERGES,
        "'a/./b' is absent and should be b'x'",
        [update({"a//b": BELOW}), update({"a/./b": BELOW})],
    ),
    "a name leads out of the root": Defect(
        NameThatLeadsOut,
        Rule.CONVERGES,
        "('outside', 'x') was never declared; it was absent, and is b'x'",
        [update({"../x": X})],
    ),
    "a link is followed, and what it leads to is overwritten": Defect(
        LinkToAFile,
        Rule.CONVERGES,
        "('outside', 'theirs') was never declared; it was b'theirs', and is b'x'",
        [Disturb(("a",)), update({"a": X})],
    ),
    "a link to a folder leads out of the root": Defect(
        LinkToAFolder,
        Rule.CONVERGES,
        "('outside', 'theirs') was never declared; it was b'theirs', and is b'x'",
        [Disturb(), update({"d/theirs": BELOW})],
    ),
    "an edit is never noticed": Defect(
        Edited,
        Rule.CONVERGES,
        "'a' is b'edited' and should be b'x'",
        [update({"a": X}), Disturb(("a", True))],
        {"heals": True},
    ),
    "a deletion is never noticed": Defect(
        Edited,
        Rule.CONVERGES,
        "'a' is absent and should be b'x'",
        [update({"a": X}), Disturb(("a", False))],
        {"heals": True},
    ),
    "the folder of the last file that goes stays": Defect(
        EmptyFolders,
        Rule.CONVERGES,
        "'a' was never declared; it was absent, and is 'an empty folder'",
        [update({"a/b": BELOW}), update({})],
    ),
    "a directory that goes takes the files of others with it": Defect(
        SharedDirectories,
        Rule.CONVERGES,
        "'d/theirs' was never declared; it was b'theirs', and is absent",
        [update({IN_PLACE: FOLDER}), Disturb(("d",)), update({})],
        {"container": True},
    ),
    "an entry can't change between file and folder": Defect(
        FilesAndFolders,
        Rule.CONVERGES,
        "apply raised FileExistsError",
        [update({"a": X}), update({"a": FOLDER})],
        {"container": True},
    ),
}


# Defects behind those: the kit stops at the first one.
BEHIND = {
    "what was a folder of files can't become a file": Defect(
        Nested,
        Rule.CONVERGES,
        "apply raised IsADirectoryError",
        [update({"a/b": BELOW}), update({"a": X})],
    ),
    "and there is no way back to the file": Defect(
        Nested,
        Rule.DELETES_WHAT_MAY_BE_GONE,
        "deleting 'a/b', which was not there any more, raised NotADirectoryError",
        [update({"a": X}), update({"a/b": BELOW}, DIES), update({"a": X})],
    ),
    "nor to the folder": Defect(
        Nested,
        Rule.DELETES_WHAT_MAY_BE_GONE,
        "deleting 'a', which was not there any more, raised IsADirectoryError",
        [update({"a/b": BELOW}), update({"a": X}, DIES), update({"a/b": BELOW})],
    ),
    "a file is torn for good when a full reprocess is cut off": Defect(
        LocalFiles,
        Rule.CONVERGES,
        "'a' is b'' and should be b'x'",
        [update({"a": X}), update({"a": X}, INSIDE, full_reprocess=True)],
    ),
    "a file that was to become a folder is never removed": Defect(
        FilesAndFolders,
        Rule.CONVERGES,
        "'a' is b'x' and should be absent",
        [update({"a": X}), update({"a": FOLDER}, DIES), update({})],
        {"container": True},
    ),
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_defect_of_localfs_is_found(defect: Defect) -> None:
    assert defect.is_found()


@pytest.mark.parametrize("defect", (DEFECTS | BEHIND).values(), ids=DEFECTS | BEHIND)
def test_shortest_history_shows_the_defect_of_localfs(defect: Defect) -> None:
    assert defect.is_told()


@pytest.mark.parametrize("target", [MendedFiles, NastyNames, Edited])
def test_localfs_passes_if_files_are_written_whole(target: type[LocalFiles]) -> None:
    check_target(target)


def test_localfs_passes_when_the_process_really_dies() -> None:
    check_target(Edited, deaths="fork")


@pytest.mark.parametrize("deaths", ["raise", "fork"])
def test_directories_without_foreign_files_pass(deaths: Literal["raise", "fork"]) -> None:
    check_target(Directories, container=True, deaths=deaths)
