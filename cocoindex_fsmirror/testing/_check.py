"""The two functions that users call: check a connector, or play one history again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NoReturn

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as Settings  # noqa: N812  # `settings` is our keyword.
from hypothesis import strategies as st
from hypothesis.database import ExampleDatabase

from ._adapter import Target, allows, checked
from ._history import Disturb, Restart, Step, Update, histories
from ._rules import Broken, ContractViolation
from ._sink import refuse_in_loop
from ._text import short
from ._updating import Updating
from ._world import Draw, Promises, World

__all__ = ["check_history", "check_target"]


def check_target(
    make: Callable[[], Target],
    *,
    settings: Settings | None = None,
    atomic: bool = False,
    heals: bool = False,
    container: bool = False,
    deaths: Literal["raise", "fork"] = "raise",
) -> None:
    """Plays random histories of updates, crashes and restarts on a connector.

    Each example makes an instance of the adapter, drives it by a model of the engine,
    and judges what is there after each update that finishes by every
    :class:`~cocoindex_fsmirror.testing.Rule`. What Hypothesis found is kept in its
    example database, and tried first by the next run.

    Args:
        make: The adapter: a class, or a function without arguments, that makes a
            :class:`~cocoindex_fsmirror.testing.Target` for a new, empty external system.
        settings: As in Hypothesis; by default its current profile. The deadline is
            always switched off.
        atomic: Whether, at each point where it is interrupted, every key must show
            its old version or its new one.
        heals: Whether each update must put right what somebody else changed before.
            Otherwise only one that may find everything missing (a full reprocess).
        container: Whether the handler acts on every update, as those of containers
            do, so that it need not settle.
        deaths: How a process dies in the sink: ``"raise"`` throws an exception that
            nothing outlives, ``"fork"`` calls the sink in a child process, which really
            ends; for connectors whose external system is not in memory.

    Raises:
        ContractViolation: A rule was broken; it tells the shortest history.
        TypeError: ``make`` gives no adapter, and it says what is missing; or another
            argument is of the wrong type.
        ValueError: ``deaths`` is neither of the two.
        RuntimeError: An event loop is running in this thread.
    """
    refuse_in_loop()
    if not isinstance(settings, Settings | None):
        raise TypeError(f"settings is {settings!r}, not hypothesis.settings(...)")
    promises = Promises(atomic, heals, container, deaths).checked()
    checked(make)

    def run(data: st.DataObject) -> None:
        with_history(make, promises, data)

    configured = _configured(settings or Settings(), _name(make))
    try:
        configured(given(st.data())(run))()
    except ContractViolation as violation:
        _raise_bare(violation)


def with_history(make: Callable[[], Target], promises: Promises, data: st.DataObject) -> None:
    """Runs one example."""
    with _opened(make, promises) as world:
        history = data.draw(
            histories(
                world.target.keys(),
                world.target.values(),
                allows=allows(world.target),
                disturbs=callable(getattr(world.target, "disturb", None)),
            )
        )
        _play(world, history, data.draw, _name(make))


@contextlib.contextmanager
def _opened(make: Callable[[], Target], promises: Promises) -> Iterator[World]:
    """Closes a world in the end; an earlier error goes before one of the closing."""
    world = World(make, promises)
    try:
        yield world
    except BaseException as error:
        try:
            world.close()
        except Exception as other:
            error.add_note(f"{_CLOSING}{type(other).__name__}: {other}")
        raise
    world.close()


def check_history(
    make: Callable[[], Target],
    history: Iterable[Step],
    *,
    atomic: bool = False,
    heals: bool = False,
    container: bool = False,
    deaths: Literal["raise", "fork"] = "raise",
) -> None:
    """Plays one history, such as that of a :class:`ContractViolation`, on a connector.

    Args:
        make: As in :func:`check_target`.
        history: The steps. After the last one the process restarts, and an update
            declares once more what the last one declared.
        atomic: As in :func:`check_target`.
        heals: As in :func:`check_target`.
        container: As in :func:`check_target`.
        deaths: As in :func:`check_target`.

    Raises:
        ContractViolation: A rule was broken.
        TypeError: ``make`` gives no adapter; or something else is of the wrong type.
        ValueError: ``deaths`` is neither of the two.
        RuntimeError: An event loop is running in this thread.
    """
    refuse_in_loop()
    promises = Promises(atomic, heals, container, deaths).checked()
    steps = tuple(history)
    for step in steps:
        if not isinstance(step, Update | Restart | Disturb):
            raise TypeError(f"{step!r} is no step of a history: Update, Restart or Disturb")
    try:
        with _opened(checked(make), promises) as world:
            _play(world, steps, _nothing_to_draw, _name(make))
    except ContractViolation as violation:
        _raise_bare(violation)


def _play(world: World, history: Sequence[Step], draw: Draw, name: str) -> None:
    """Takes each step; then restarts, and updates once more without a fault."""
    story: list[str] = []
    played: list[Step] = []
    last = Update({})
    is_dead = False

    def tell(event: object) -> None:
        story.append(f"{len(story) + 1}. {event}")

    def take(step: Step) -> Step:
        nonlocal is_dead
        if isinstance(step, Update):
            if is_dead:
                tell("restart")
            updating = Updating(world, step)
            try:
                updating.run()
            finally:
                tell(updating)
            is_dead = updating.died
            if is_dead:
                world.crash()
            return step
        if isinstance(step, Disturb):
            step, changed = world.disturb(step, draw)
            tell(f"somebody else leaves {short(changed)}; restart")
        else:
            tell("restart")
        world.restart()
        is_dead = False
        return step

    try:
        for step in history:
            played.append(step)
            played[-1] = take(step)
            last = step if isinstance(step, Update) else last
        for step in (Restart(), Update(last.declared)):
            take(step)
    except Broken as broken:
        raise ContractViolation(
            name, broken.rule, broken.found, played, story, promises=world.promises.given
        ) from broken


def _raise_bare(violation: ContractViolation) -> NoReturn:
    """Raises a violation without the frames and notes of how it was found."""
    bare = ContractViolation(
        violation.subject,
        violation.rule,
        violation.found,
        violation.history,
        violation.story,
        promises=violation.promises,
    )
    for note in getattr(violation, "__notes__", ()):
        if note.startswith(_CLOSING):
            bare.add_note(note)
    raise bare from None


def _nothing_to_draw(strategy: st.SearchStrategy[object]) -> NoReturn:
    """Stands for Hypothesis where a history is played again."""
    raise ValueError(f"this history has no value for {strategy!r}: was it made by this adapter?")


def _name(make: Callable[[], Target]) -> str:
    """Returns the name of an adapter."""
    return getattr(make, "__qualname__", repr(make))


def _configured(settings: Settings, name: str) -> Settings:
    """Adjusts the settings of a user to what is possible here."""
    database = settings.database
    return Settings(
        settings,
        deadline=None,
        database=None if database is None else _Shelf(database, name),
        report_multiple_bugs=False,
        print_blob=False,
        phases=[phase for phase in settings.phases if phase is not Phase.explain],
        suppress_health_check=[*settings.suppress_health_check, *_SLOW],
    )


_CLOSING: Final = "Then close() raised "
_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given)


class _Shelf(ExampleDatabase):
    """A part of an example database: every check runs the same function, on another adapter."""

    def __init__(self, database: ExampleDatabase, name: str) -> None:
        super().__init__()
        self._database, self._name = database, name.encode()

    def save(self, key: bytes, value: bytes) -> None:
        """Keeps an example."""
        self._database.save(key + self._name, value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Returns the examples that are kept."""
        return self._database.fetch(key + self._name)

    def delete(self, key: bytes, value: bytes) -> None:
        """Drops an example."""
        self._database.delete(key + self._name, value)
