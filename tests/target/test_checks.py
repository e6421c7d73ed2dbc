"""Modes that a declaration refuses, since they were written in decimal."""

from __future__ import annotations

import itertools

import pytest

from cocoindex_fsmirror._core.attributes import checked_attributes

USUAL = [600, 640, 644, 660, 664, 666, 700, 750, 755, 770, 775, 777, 400, 440, 444, 500, 550, 555]
GIVEN_UP = {0o620: 400, 0o764: 500}  # Unusual, and equal to decimal spellings of usual modes.
NONE, X, R, RX, RW, RWX = 0, 1, 4, 5, 6, 7
# Folders that may be entered or written to, but not listed.
DROP_BOXES = [0o711, 0o733, 0o730, 0o1733, 0o1730, 0o3730, 0o3733, 0o2733, 0o2711, 0o4711, 0o4111]


def _is_refused(mode: int) -> bool:
    """True if a mode can't be declared."""
    try:
        checked_attributes(mode)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("mode", [*USUAL, 711, 744, 754, 1777, 2755, 2775, 4755])
def test_decimal_mode_is_refused_with_what_to_write(mode: int) -> None:
    with pytest.raises(ValueError, match=f"^mode {mode} is {mode:#o} in octal; write 0o{mode}$"):
        checked_attributes(mode)


@pytest.mark.parametrize("mode", [100644, 100755, 0o100644, -644, 8888])
def test_number_that_is_no_mode_even_as_octal_is_out_of_range(mode: int) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 0o7777"):
        checked_attributes(mode)


@pytest.mark.parametrize("mode", USUAL)
def test_usual_octal_mode_passes_with_each_special_bit(mode: int) -> None:
    octal = int(str(mode), 8)
    for special in range(8):
        assert checked_attributes(special << 9 | octal).mode == special << 9 | octal


def test_every_sane_octal_mode_passes() -> None:
    """No class may do more than the one before; write implies read; the owner may read."""
    classes = itertools.product([R, RX, RW, RWX], *[[NONE, X, R, RX, RW, RWX]] * 2, range(8))
    sane = [
        special << 9 | owner << 6 | group << 3 | others
        for owner, group, others, special in classes
        if not (group & ~owner or others & ~group)
    ]
    assert len(sane) > 200
    assert {mode for mode in sane if _is_refused(mode)} <= GIVEN_UP.keys()


@pytest.mark.parametrize("mode", [0, 0o077, 0o070, 0o007, *DROP_BOXES])
def test_unusual_octal_mode_passes(mode: int) -> None:
    assert checked_attributes(mode).mode == mode


def test_refused_mode_has_bits_that_nobody_would_ask_for() -> None:
    """Such a mode lets others do what the owner or the group may not."""
    refused = [mode for mode in range(0o10000) if _is_refused(mode)]
    assert len(refused) > len(USUAL)
    for mode in set(refused) - GIVEN_UP.keys():
        owner, group, others = mode >> 6 & 7, mode >> 3 & 7, mode & 7
        assert not owner & R or group & ~owner or others & ~group, f"{mode:#o}"
        assert set(str(mode)) <= set("01234567"), f"{mode:#o}"
