"""The path, stamp or age by which somebody asks for backups."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror._core.ages import parse_age
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._mirror.backups import Backup, find


def _backup(stamp: str, name: str, home: str = "") -> Backup:
    """Returns a backup that need not exist; its stamp is a number of seconds."""
    where = f"{home}.fsmirror/backup/{stamp}/{name}"
    time_ns = int(stamp.partition(".")[0]) * 1_000_000_000
    return Backup(Name(where), Name(name), stamp, time_ns, "file", 1)


OLD, NEW, SECOND = _backup("1", "a/x"), _backup("2", "a/x"), _backup("2.1", "a/x")
NAMED_LIKE_ONE, OTHER = _backup("3", "1/a/x"), _backup("3", "x")
ALL = [OTHER, SECOND, NEW, NAMED_LIKE_ONE, OLD]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("a/x", [OLD, NEW, SECOND]),
        ("x", [OTHER]),
        ("1/a/x", [OLD]),  # The stamp goes before the name.
        ("3/1/a/x", [NAMED_LIKE_ONE]),
        ("2.1/a/x", [SECOND]),
        (".fsmirror/backup/2/a/x", [NEW]),
        ("a", []),
        ("a/x/", []),
        ("2", []),
        ("", []),
        ("*", []),
    ],
)
def test_backup_is_found_by_place_by_time_or_by_name(asked: str, meant: list[Backup]) -> None:
    assert find(ALL, asked) == meant
    assert find(reversed(ALL), asked) == meant


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2_700), ("12h", 43_200), ("2w", 1_209_600), ("0s", 0), ("07d", 604_800)],
)
def test_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_age(text) == seconds * 10**9


@pytest.mark.parametrize(
    "text", ["", "d", "30", "30D", "1.5d", "-1d", " 1d", "1d ", "1d\n", "1 d", "1y", "٣d", "1d2h"]
)
def test_malformed_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no age: write a whole number and a unit") as error:
        parse_age(text)
    assert repr(text) in str(error.value)


def test_age_with_very_many_digits_is_refused_in_the_same_words() -> None:
    with pytest.raises(ValueError, match="is no age"):
        parse_age("9" * 5_000 + "d")
