"""The chart of the claims, which is readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .claims import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_TEXT: Final = "#7d8590"  # As legible on white as on nearly black.
_GOAL, _BAR, _MISSED = "#2da44e", "#bf8700", "#d1242f"
_END: Final = 3.0  # Bars that are longer are cut off there.
_LEGEND: Final = "our time / their time; below it, single rounds; | bar, \N{BLACK DIAMOND} goal"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draws the claims that are ratios.

    Args:
        outcomes: What came of the claims, in the order from the top.
        path: The SVG file to write; it is the same for the same outcomes.
    """
    import matplotlib as mpl  # noqa: PLC0415  # Slow to import, and needed only here.

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = [outcome for outcome in outcomes if not outcome.claim.unit]
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "fsmirror", "font.size": 9}
    style |= dict.fromkeys(("text.color", "xtick.color", "ytick.color"), _TEXT)
    with mpl.rc_context(style):
        figure, axes = plt.subplots(figsize=(9.5, 0.9 + 0.42 * max(len(shown), 1)))
        for at, outcome in enumerate(shown):
            _draw_one(axes, at, outcome)
        axes.set_yticks(range(len(shown)), [_label(outcome) for outcome in shown])
        axes.invert_yaxis()
        axes.axvline(1, color=_TEXT, linewidth=0.8, linestyle=":")
        axes.set_xlim(left=0)
        axes.set_xlabel(_LEGEND, color=_TEXT)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _draw_one(axes: Axes, at: int, outcome: Outcome) -> None:
    """Draws one claim: its value and spread, and the marks that it is held against."""
    claim, spread = outcome.claim, outcome.spread
    colour = _GOAL if outcome.meets_goal else _MISSED if outcome.meets_bar is False else _BAR
    axes.barh(at, min(spread.value, _END), height=0.4, color=colour)
    rounds = [min(spread.low, _END), min(spread.high, _END)]
    axes.plot(rounds, [at + 0.3, at + 0.3], color=colour, linewidth=1.5)
    if claim.bar is not None:
        axes.plot([claim.bar], [at], marker="|", markersize=16, markeredgewidth=2, color=_TEXT)
    axes.plot([claim.goal], [at], marker="D", markersize=5, color=_TEXT, markeredgecolor="white")
    edge = min(max(spread.value, spread.high, claim.bar or 0, claim.goal), _END)
    axes.annotate(
        f"{spread.value:.2f}", (edge, at), (8, 0), textcoords="offset points", va="center"
    )


def _label(outcome: Outcome) -> str:
    """Returns the two lines that say what is compared."""
    claim = outcome.claim
    return f"{claim.number}  {claim.title}\n{claim.ours} / {claim.theirs}"
