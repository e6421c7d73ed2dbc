"""``--links``: links are mirrored as links, as what they lead to, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command.commands import run
from tests.support import Tree, backups, exact_state, snapshot


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with links to files and folders, in it and elsewhere."""
    source, other = tmp_path / "src", tmp_path / "other"
    for folder, names in ((source, ("a", "d/b", "d/e/c")), (other, ("x", "deep/y", "secret/z"))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    for path, target in {
        source / "to-a": "a",
        source / "absolute": str(source / "a"),
        source / "to-d": "d",
        source / "d/up": "../a",
        source / "d/out": "../../other/x",
        source / "other": "../other",
        other / "deep/stays": "../x",
        other / "climbs": "../src/a",
    }.items():
        path.symlink_to(target)
    (other / "x").chmod(0o640)
    os.utime(other / "x", ns=(1, 1_700_000_000_000_000_001))
    return source


PLAIN: Tree = {"a": b"a", "d": "dir", "d/b": b"d/b", "d/e": "dir", "d/e/c": b"d/e/c"}
OTHER: Tree = {
    "x": b"x",
    "deep": "dir",
    "deep/y": b"deep/y",
    "secret": "dir",
    "secret/z": b"secret/z",
}


def below(folder: str, tree: Tree) -> Tree:
    """Returns a tree as it is in a folder."""
    return {folder: "dir"} | {f"{folder}/{name}": found for name, found in tree.items()}


EXPECTED: dict[str, Tree] = {
    "keep": PLAIN
    | {"to-a": "-> a", "to-d": "-> d", "d/up": "-> ../a", "other": "-> ../other"}
    | {"d/out": "-> ../../other/x", "absolute": "-> {src}/a"},
    "skip": PLAIN,
    "follow": PLAIN
    | {"to-a": b"a", "absolute": b"a", "d/up": b"a", "d/out": b"x"}
    | below("to-d", {"b": b"d/b", "e": "dir", "e/c": b"d/e/c", "up": b"a", "out": b"x"})
    | below("other", OTHER | {"deep/stays": b"x", "climbs": b"a"}),
    "follow-outside": PLAIN
    | {"to-a": "-> a", "absolute": b"a", "to-d": "-> d", "d/up": "-> ../a", "d/out": b"x"}
    | below("other", OTHER | {"deep/stays": "-> ../x", "climbs": b"a"}),
}


def sync(src: Path, dst: Path, links: str, *options: object) -> dict[str, Any]:
    """Mirrors; returns the figures."""
    result = run("sync", src, dst, "--links", links, "--json", "-v", *options)
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures | {"status": result.exit_code}


@pytest.mark.parametrize("links", EXPECTED)
def test_links_are_mirrored_as_it_says(src: Path, dst: Path, links: str) -> None:
    expected = {
        name: found.format(src=src) if isinstance(found, str) else found
        for name, found in EXPECTED[links].items()
    }
    foreseen = sync(src, dst, links, "-n")["changes"]
    done = sync(src, dst, links, "--exact")
    assert done["failures"] == []
    assert snapshot(dst) == expected
    assert {each["path"] for each in foreseen} == {each["path"] for each in done["changes"]}
    before = exact_state(dst)
    for options in ([], ["--exact"], ["--checksum"], ["--exact", "-n"]):
        again = sync(src, dst, links, *options)
        assert (again["changes"], again["status"]) == ([], 0)
        assert snapshot(dst) == expected
    assert exact_state(dst).keys() == before.keys()
    assert run("verify", dst, "--content").exit_code == 0


def test_copy_has_mode_and_time_of_what_its_link_leads_to(src: Path, dst: Path) -> None:
    sync(src, dst, "follow")
    for copied in (dst / "other" / "x", dst / "d" / "out"):
        found = copied.lstat()
        assert found.st_mode & 0o777 == 0o640
        assert found.st_mtime_ns == 1_700_000_000_000_000_001


def test_changes_behind_links_are_mirrored(src: Path, dst: Path) -> None:
    sync(src, dst, "follow")
    (src.parent / "other" / "x").write_text("new")
    (src.parent / "other" / "deep" / "y").unlink()
    assert sync(src, dst, "follow")["deleted"] == 1
    assert (dst / "other" / "x").read_text() == (dst / "d" / "out").read_text() == "new"
    (src / "other").unlink()
    (src / "other").symlink_to("d")
    sync(src, dst, "follow")
    assert (dst / "other" / "b").read_text() == "d/b"
    assert not (dst / "other" / "x").exists()


@pytest.mark.parametrize("links", ["keep", "follow", "follow-outside"])
def test_another_choice_replaces_what_is_there(src: Path, dst: Path, links: str) -> None:
    for before in ("follow", "keep", "follow-outside"):
        sync(src, dst, before)
        assert sync(src, dst, links)["failures"] == []
        assert {*snapshot(dst)} == {*EXPECTED[links]}
        assert backups(dst) == []


def test_links_that_are_left_out_are_left_alone(src: Path, dst: Path) -> None:
    sync(src, dst, "keep")
    before = snapshot(dst)
    assert sync(src, dst, "skip", "--exact")["changes"] == []
    assert snapshot(dst) == before
    sync(src, dst, "skip", "--delete-excluded")
    assert snapshot(dst) == PLAIN


def _dangles(link: Path, _dst: Path) -> None:
    """Makes a link that leads nowhere."""
    link.symlink_to("nowhere")


def _turns(link: Path, _dst: Path) -> None:
    """Makes a link to itself."""
    link.symlink_to(link.name)


def _climbs(link: Path, _dst: Path) -> None:
    """Makes a link to the source itself."""
    link.symlink_to(link.parent)


def _holds_all(link: Path, _dst: Path) -> None:
    """Makes a link to the root of the file system."""
    link.symlink_to("/")


def _is_ours(link: Path, _dst: Path) -> None:
    """Makes a link into a folder of a mirror elsewhere."""
    (link.parent.parent / "elsewhere" / ".fsmirror" / "backup").mkdir(parents=True)
    link.symlink_to("../elsewhere/.fsmirror/backup")


def _enters(link: Path, dst: Path) -> None:
    """Makes a link into the mirror."""
    link.symlink_to(dst / "d")


def _holds(link: Path, dst: Path) -> None:
    """Makes a link to the folder that the mirror is in."""
    link.symlink_to(dst.parent)


@pytest.mark.parametrize("links", ["follow", "follow-outside"])
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_dangles, "can't be followed: No such file"),
        (_turns, "can't be followed: Too many levels"),
        (_climbs, "leads back to a folder above it"),
        (_enters, "leads to where the mirror is"),
        (_holds_all, "leads to where the mirror is"),
        (_is_ours, "leads into a folder of a mirror"),
        (_holds, "leads to where the mirror is"),
    ],
)
def test_link_that_can_not_be_followed_stops_only_itself(
    src: Path, dst: Path, links: str, make: Callable[[Path, Path], None], problem: str
) -> None:
    sync(src, dst, links)
    (src / "wrong").write_text("right")
    sync(src, dst, links)
    (src / "wrong").unlink()
    make(src / "wrong", dst)
    (src / "a").write_text("new")
    figures = sync(src, dst, links, "--exact")
    if links == "follow-outside" and make in (_dangles, _turns):  # They lead nowhere else.
        assert figures["failures"] == []
        return
    assert figures["status"] == 3
    (failure,) = figures["failures"]
    assert failure["path"] == "wrong"
    assert problem in failure["problem"]
    assert (dst / "wrong").read_text() == "right"
    assert (dst / "a").read_text() == "new"


def test_link_into_the_state_is_not_followed(src: Path, dst: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run("sync", src, dst, "--state", state)
    (src / "wrong").symlink_to(next(state.iterdir()))
    (failure,) = sync(src, dst, "follow", "--state", state)["failures"]
    assert "leads to where the mirror is" in failure["problem"]


def test_patterns_and_sizes_count_for_what_links_lead_to(src: Path, dst: Path) -> None:
    (src.parent / "other" / "x").write_bytes(b"x" * 2000)
    sync(src, dst, "follow", "--exclude", "secret", "--exclude", "/to-d/", "--max-size", "1K")
    found = snapshot(dst)
    assert "to-d" not in found
    assert "other/secret" not in found
    assert "other/x" not in found
    assert found["other/deep/y"] == b"deep/y"


@pytest.mark.parametrize("what", ["link", "file"])
def test_exact_leaves_alone_what_is_in_the_place_of_something_left_out(
    src: Path, dst: Path, what: str
) -> None:
    sync(src, dst, "follow")
    name, options = ("other", ["--links", "skip"]) if what == "link" else ("a", ["--max-size", "0"])
    if what == "file":
        (dst / "a").unlink()
        (dst / "a").mkdir()
    (dst / name / "theirs").write_text("theirs")
    run("sync", src, dst, "--exact", *options)
    assert (dst / name / "theirs").read_text() == "theirs"


def test_link_into_the_other_version_is_not_followed(src: Path, dst: Path) -> None:
    run("publish", src, dst)
    (src / "wrong").symlink_to(f"{dst}.a")
    result = run("publish", src, dst, "--links", "follow")
    assert (result.exit_code, "leads to where the mirror is" in result.stderr) == (3, True)


def test_special_file_behind_a_link_is_skipped(src: Path, dst: Path) -> None:
    os.mkfifo(src.parent / "fifo")
    (src / "pipe").symlink_to("../fifo")
    figures = sync(src, dst, "follow")
    assert (figures["skipped"], figures["status"]) == (["pipe"], 0)


def test_many_folders_are_followed_with_few_descriptors(src: Path, dst: Path) -> None:
    for number in range(300):
        (src / f"link-{number}").symlink_to("d/e")
    assert sync(src, dst, "follow")["failures"] == []
    assert (dst / "link-299" / "c").read_text() == "d/e/c"
