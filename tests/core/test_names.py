"""Names are parsed once, to one form each, or refused."""

from __future__ import annotations

import os
from pathlib import PurePath, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoindex_fsmirror import FsMirrorError, InvalidNameError
from cocoindex_fsmirror._core.names import (
    ROOT,
    Folding,
    Name,
    ancestors,
    join,
    leaf,
    parent,
    parse_link_target,
    parse_name,
)

REFUSED = {
    "empty": "",
    "the directory itself": ".",
    "the directory itself, at length": "././/.",
    "only slashes": "//",
    "absolute": "/etc/passwd",
    "absolute, doubled": "//etc/passwd",
    "absolute, and our own": "/.fsmirror",
    "the folder above": "..",
    "leaves at the start": "../x",
    "leaves in the middle": "a/../../x",
    "leaves at the end": "a/..",
    "comes back": "a/../b",
    "NUL": "a\0b",
    "NUL in a folder": "a\0/b",
    "lone high surrogate": "a\ud800",
    "low surrogate of no byte": "\udc7f/b",
    "256 bytes": "x" * 256,
    "256 bytes in a folder": "a/" + "x" * 256 + "/b",
    "256 bytes in 128 characters": "é" * 128,
    "256 bytes of emoji": "😀" * 64,
}

# Spellings that reach the folder of our ledger on some file system.
RESERVED = {
    "itself": ".fsmirror",
    "below it": ".fsmirror/ledger.sqlite3",
    "below a folder": "a/.fsmirror",
    "below a folder, in the middle": "a/.fsmirror/b",
    "with a dot component": "./.fsmirror",
    "upper case": ".FSMIRROR",
    "mixed case": ".FsMirror/x",
    "vfat: trailing dot": ".fsmirror.",
    "vfat: trailing dots and spaces": ".fsmirror . .",
    "NTFS: alternate stream": ".fsmirror::$INDEX_ALLOCATION",
    "NTFS: named stream": ".fsmirror:x",
    "short name": "FSMIRR~1",
    "short name, lower case": "fsmirr~12/x",
    "HFS+: zero-width joiner": ".fs\u200dmirror",
    "HFS+: right-to-left mark": ".fsmirror\u200f",
    "HFS+: byte order mark": "\ufeff.fsmirror",
    "HFS+: inhibit shaping": ".f\u206csmirror",
    "NTFS and case: long s": ".f\u017fmirror",
    "compatibility form: full width": "\uff0efsmirror",
    "ignorable: soft hyphen": ".fs\u00admirror",
    # ext4 and f2fs with casefold drop every default-ignorable code point.
    "casefold: variation selector": ".fsmirror\ufe0f",
    "casefold: combining grapheme joiner": ".fs\u034fmirror",
    "casefold: Hangul filler": ".fsmirror\u3164",
    "casefold: Mongolian variation selector": ".fs\u180bmirror",
    "casefold: variation selector supplement": ".fs\U000e0100mirror",
}

FINE = [
    "a",
    "a/b/c.txt",
    "-",
    "-rf",
    "--help/-x",
    "new\nline",
    "\n",
    "tab\t",
    "\x01\x7f",
    "back\\slash",
    "..\\x",
    "C:",
    "con",
    "*?<>|\"'$`;&",
    " ",
    " leading and trailing ",
    "...",
    "..a",
    "a..",
    ".hidden",
    "~",
    "~root/x",
    "😀/🏳️‍🌈.txt",
    "日本語/ファイル",
    "e\u0301",
    "\u00e9",
    "x" * 255,
    "é" * 127 + "x",
    "/".join(["x" * 255] * 20),
    ".fsmirro",
    ".fsmirrors",
    "fsmirror",
    ".fsmirror2/x",
    "x.fsmirror",
    "fsmirror~1",
    "fsmirr~x",
    ".git",
]

NORMAL = {
    "a//b": "a/b",
    "./a/b": "a/b",
    "a/./b": "a/b",
    "a/b/": "a/b",
    "a/b/.": "a/b",
    ".//a///./b//": "a/b",
    "./.../": "...",
}

_LETTERS = st.one_of(
    st.sampled_from("./\\-~: \nabF"), st.characters(), st.characters(categories=["Cs"])
)
_NAMES = st.text(_LETTERS, max_size=40)


@pytest.mark.parametrize("declared", REFUSED.values(), ids=REFUSED)
def test_refused_name_is_quoted(declared: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_name(declared)
    assert repr(declared) in str(caught.value)
    assert caught.value.name == declared
    assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize("declared", RESERVED.values(), ids=RESERVED)
def test_every_spelling_of_our_own_folder_is_refused(declared: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_name(declared)
    assert repr(declared) in str(caught.value)


@pytest.mark.parametrize("declared", FINE)
def test_other_names_are_taken_unchanged(declared: str) -> None:
    assert parse_name(declared) == declared


@pytest.mark.parametrize(("declared", "normal"), NORMAL.items())
def test_spellings_of_a_path_are_one_key(declared: str, normal: str) -> None:
    assert parse_name(declared) == normal


def test_refused_name_is_an_error_of_ours_and_a_value_error() -> None:
    assert issubclass(InvalidNameError, FsMirrorError)
    assert issubclass(InvalidNameError, ValueError)


@pytest.mark.parametrize("declared", [None, b"a", 1, ["a"], ("a",)], ids=repr)
def test_name_that_is_no_text_is_a_type_error(declared: object) -> None:
    with pytest.raises(TypeError, match=type(declared).__name__):
        parse_name(declared)  # type: ignore[arg-type]


def test_pure_path_is_a_name() -> None:
    assert parse_name(PurePath("a/b.txt")) == "a/b.txt"
    assert parse_name(PurePosixPath("a//./b/")) == "a/b"


@pytest.mark.parametrize("declared", [PurePath("."), PurePath("/a"), PurePath("a/../b")], ids=repr)
def test_pure_path_is_refused_by_the_same_rules(declared: PurePath) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_name(declared)
    assert repr(str(declared)) in str(caught.value)


@given(_NAMES)
def test_parsed_name_is_its_own_normal_form(declared: str) -> None:
    try:
        name = parse_name(declared)
    except InvalidNameError:
        return
    assert parse_name(name) == name
    assert not {"", ".", ".."} & set(name.split("/"))


@given(_NAMES)
def test_pathlib_agrees_with_every_verdict_on_a_name(declared: str) -> None:
    try:
        path = PurePosixPath(os.fsdecode(os.fsencode(declared)))
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        with pytest.raises(InvalidNameError):
            parse_name(declared)
        return
    usable = not path.is_absolute() and path.parts and ".." not in path.parts
    usable = usable and "\0" not in declared
    usable = usable and all(len(os.fsencode(part)) < 256 for part in path.parts)
    if usable and not any("mirr" in part.casefold() for part in path.parts):
        assert parse_name(declared) == str(path)
    elif not usable:
        with pytest.raises(InvalidNameError):
            parse_name(declared)


@given(st.lists(st.sampled_from(["a", "b.c", "-", "..."]), min_size=1, max_size=6))
def test_parts_of_a_name_fit_together(parts: list[str]) -> None:
    name, path = Name("/".join(parts)), PurePosixPath(*parts)
    assert leaf(name) == path.name
    assert parent(name) == (str(path.parent) if len(parts) > 1 else ROOT)
    assert list(ancestors(name)) == [str(above) for above in reversed(path.parents)][1:]
    assert join(parent(name), Name(leaf(name))) == name
    assert join(ROOT, name) == name


# Link targets, by the path of the link.
STAYS_INSIDE = [
    ("l", "x"),
    ("l", "."),
    ("l", "./a//b/./"),
    ("l", "..."),
    ("l", "..a/b.."),
    ("l", " "),
    ("l", "new\nline"),
    ("l", "back\\slash\\..\\.."),
    ("l", "C:\\x"),
    ("l", "~/x"),
    ("l", "x" * 256),
    ("l", "😀"),
    ("d/l", ".."),
    ("d/l", "../"),
    ("d/l", "..//./x"),
    ("d/l", "./../x/y"),
    ("d/e/l", "../../x"),
]
MAY_LEAD_OUT = [
    ("l", "/"),
    ("l", "/etc/passwd"),
    ("l", "//x"),
    ("l", "/."),
    ("l", ".."),
    ("l", "../x"),
    ("l", "./../x"),
    ("l", ".//../"),
    ("l", "a/.."),
    ("l", "a/../b"),
    ("d/l", "../.."),
    ("d/l", "../../x"),
    ("d/l", ".././../x"),
    ("d/l", "a/../b"),
    ("d/l", "../a/../b"),
    ("d/e/l", "a/b/../.."),
    ("d/e/l", "../../../x"),
]
NO_LINK = {"empty": "", "NUL": "a\0b", "lone surrogate": "a\ud800"}


@pytest.mark.parametrize(("link", "target"), STAYS_INSIDE)
def test_link_target_below_the_root_is_taken_unchanged(link: str, target: str) -> None:
    assert parse_link_target(target, Name(link)) == target


@pytest.mark.parametrize(("link", "target"), MAY_LEAD_OUT)
def test_link_target_outside_the_root_needs_allow_escape(link: str, target: str) -> None:
    with pytest.raises(InvalidNameError, match="allow_escape=True allows it") as caught:
        parse_link_target(target, Name(link))
    assert repr(target) in str(caught.value)
    assert caught.value.name == target
    assert parse_link_target(target, None) == target


@pytest.mark.parametrize("inside", [Name("d/l"), None])
@pytest.mark.parametrize("target", NO_LINK.values(), ids=NO_LINK)
def test_impossible_link_target_is_always_refused(target: str, inside: Name | None) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_link_target(target, inside)
    assert repr(target) in str(caught.value)
    assert "allow_escape" not in str(caught.value)


@pytest.mark.parametrize("inside", [Name("d/l"), None])
@pytest.mark.parametrize("target", [None, b"a", 1, ["a"]], ids=repr)
def test_link_target_that_is_no_text_is_a_type_error(target: object, inside: Name | None) -> None:
    with pytest.raises(TypeError, match=type(target).__name__):
        parse_link_target(target, inside)  # type: ignore[arg-type]


def test_link_target_may_be_a_pure_path() -> None:
    assert parse_link_target(PurePath("../a//b/"), Name("d/l")) == "../a/b"
    assert parse_link_target(PurePosixPath("/a"), None) == "/a"
    with pytest.raises(InvalidNameError, match="'/a'"):
        parse_link_target(PurePath("/a"), Name("d/l"))


_STEPS = st.lists(st.sampled_from(["..", "..", ".", "", "a", "..."]), min_size=1, max_size=8)


@given(_STEPS, st.lists(st.sampled_from("de"), max_size=4))
def test_link_target_is_taken_if_no_prefix_of_it_leaves_the_root(
    steps: list[str], folders: list[str]
) -> None:
    target, link = "/".join(steps), Name("/".join([*folders, "l"]))
    depth, stays = len(folders), not target.startswith("/")
    for step in steps:
        if step == "..":
            depth -= 1
        elif step not in ("", "."):
            depth = 0  # At worst, the link leads to the root.
        stays = stays and depth >= 0
    if stays and target:
        assert parse_link_target(target, link) == target
    else:
        with pytest.raises(InvalidNameError):
            parse_link_target(target, link)


def test_only_equal_names_meet_without_folding() -> None:
    plain = Folding()
    assert not plain
    assert plain(Name("A")) != plain(Name("a"))
    assert plain(Name("e\u0301")) != plain(Name("\u00e9"))


def test_folding_of_case_joins_names_that_differ_in_case_only() -> None:
    folding = Folding(case=True)
    assert folding
    assert folding(Name("Straße/A")) == folding(Name("STRASSE/a"))
    assert folding(Name("e\u0301")) != folding(Name("\u00e9"))


def test_folding_of_unicode_joins_equivalent_compositions_only() -> None:
    folding = Folding(unicode=True)
    assert folding
    assert folding(Name("e\u0301")) == folding(Name("\u00e9"))
    assert folding(Name("É")) != folding(Name("é"))


def test_folding_of_both_joins_names_that_differ_in_both() -> None:
    folding = Folding(case=True, unicode=True)
    assert folding(Name("E\u0301")) == folding(Name("\u00e9"))
    assert folding(Name("\u0390")) == folding(Name("\u0399\u0308\u0301"))


class _Text(str):
    __slots__ = ()


@pytest.mark.parametrize("text", ["plain", "not//plain", "./é"])
def test_name_is_exactly_a_str_for_its_stores(text: str) -> None:
    assert type(parse_name(_Text(text))) is str
    assert parse_name(_Text(text)) == parse_name(text)
