"""A simulated process: its one event loop, its tasks and threads, and that all die together."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import settings

from cocoindex_fsmirror.testing import Fault, Restart, Update, check_history, check_target
from cocoindex_fsmirror.testing._sink import Sink
from cocoindex_fsmirror.testing._steps import apply_here
from tests.kit.connectors import Action, Folder, Handler, Shelf
from tests.kit.test_steps import HOWS, How, dies, fails, listed

SOME = settings(max_examples=40, database=None, derandomize=True)
ONE, OTHER = Update({"one": {"a": b"1"}}), Update({"one": {"a": b"2"}})


class Queued(Folder):
    """Hands its actions to a task that lives as long as the process."""

    worker: asyncio.Task[None] | None

    def handler(self) -> Handler:
        self.worker, self.queue = None, asyncio.Queue[tuple[Action, asyncio.Future[None]]]()
        return super().handler()

    async def apply(self, actions: Sequence[Action]) -> None:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        if self.worker is None:
            self.worker = loop.create_task(self.work())
        waiting = [(action, loop.create_future()) for action in actions]
        for each in waiting:
            await self.queue.put(each)
        for _, done in waiting:
            await done

    async def work(self) -> None:
        """Carries out one action after the other."""
        while True:
            action, done = await self.queue.get()
            try:
                self.take(action)
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)


class Threaded(Folder):
    """Works in threads."""

    async def apply(self, actions: Sequence[Action]) -> None:  # type: ignore[override]
        await asyncio.gather(*(asyncio.to_thread(self.take, action) for action in actions))


@pytest.mark.parametrize("deaths", ["raise", "fork"])
@pytest.mark.parametrize("make", [Queued, Threaded])
def test_sink_bound_to_its_event_loop_passes(
    make: type[Folder], deaths: Literal["raise", "fork"]
) -> None:
    check_target(make, settings=SOME, deaths=deaths, atomic=True)


class Looping(Shelf):
    """Records the loops of its calls, and the end of a task that it left behind."""

    loops: list[asyncio.AbstractEventLoop]
    ended: list[str]

    async def apply(self, actions: Sequence[Action]) -> None:  # type: ignore[override]
        self.loops.append(asyncio.get_running_loop())
        self.task = asyncio.create_task(self.wait())
        await asyncio.sleep(0)
        super().apply(actions)

    async def wait(self) -> None:
        """Waits forever."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


def test_each_process_has_one_loop() -> None:
    class Noted(Looping):
        loops, ended = [], []

    check_history(
        Noted, [ONE, OTHER, Restart(), ONE, Update(OTHER.declared, Fault("dies", "after"))]
    )
    assert [Noted.loops.index(loop) for loop in Noted.loops] == [0, 0, 2, 2, 4]
    assert all(loop.is_closed() for loop in Noted.loops)
    assert Noted.ended == ["cancelled"] * 5


class Buffered(Looping):
    """Tidies up when its task is cancelled."""

    loops: list[asyncio.AbstractEventLoop] = []  # noqa: RUF012
    ended: list[str] = []  # noqa: RUF012

    async def wait(self) -> None:
        try:
            await super().wait()
        finally:
            os.listdir("/")
            self.ended.append("tidied up")


@pytest.mark.parametrize("where", ["before", "after"])
def test_process_that_dies_between_two_calls_does_not_tidy_up(
    where: Literal["before", "after"],
) -> None:
    Buffered.ended.clear()
    check_history(Buffered, [ONE, Update(OTHER.declared, Fault("dies", where))])
    dead = 1 if where == "before" else 2
    assert Buffered.ended == ["cancelled"] * dead + ["cancelled", "tidied up"]


def test_last_loop_is_closed_when_a_rule_is_broken() -> None:
    class Noted(Looping):
        loops, ended = [], []

        def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
            raise ValueError(key)

    with pytest.raises(AssertionError, match="raised ValueError"):
        check_history(Noted, [ONE])
    assert [loop.is_closed() for loop in Noted.loops] == [True]


@pytest.mark.parametrize(
    "check", [lambda: check_target(Shelf), lambda: check_history(Shelf, [ONE])]
)
def test_running_loop_is_refused_with_a_remedy(check: Callable[[], None]) -> None:
    async def in_a_test() -> None:
        with pytest.raises(
            RuntimeError, match=r"^an event loop is running here.*asyncio\.to_thread"
        ):
            check()
        await asyncio.to_thread(check_history, Shelf, [ONE])

    asyncio.run(in_a_test())


# Steps in threads, and deaths there


class _Bare(Shelf):
    """An adapter whose sink is a function."""

    def __init__(self, function: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.function = function

    async def apply(self, actions: Sequence[Action]) -> None:  # type: ignore[override]
        await self.function()


@contextlib.contextmanager
def sink(function: Callable[[], Awaitable[None]]) -> Iterator[Sink]:
    """Yields the sink of a process that lives meanwhile."""
    with contextlib.closing(Sink(_Bare(function))) as made:
        yield made


@pytest.mark.parametrize("kind", ["dies", "fails"])
@HOWS
def test_threads_take_the_same_steps(how: How, kind: Any, tmp_path: Path) -> None:
    reached = []
    for step in range(3):

        async def function() -> None:
            await asyncio.to_thread((tmp_path / "file").write_bytes, b"new")

        with sink(function) as apply:
            reached.append(how(apply, [], Fault(kind, "inside", step)).where)
    assert reached == ["open", "file.write", ""]


@HOWS
def test_steps_of_threads_of_earlier_calls_are_seen(how: How, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def apply(_actions: object) -> None:
            pool.submit(file.write_bytes, b"new").result()

        assert apply_here(apply, [], None).where == ""
        assert [apply_here(apply, [], dies(step)).where for step in (1, 2)] == ["file.write", ""]


def test_death_of_a_thread_ends_all_threads_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    has_died = threading.Event()

    def first() -> None:
        try:
            (tmp_path / "first").mkdir()
        finally:
            has_died.set()

    def second() -> None:
        has_died.wait()
        (tmp_path / "second").write_bytes(b"")

    async def third() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            (tmp_path / "third").mkdir()

    async def function() -> None:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(None, call) for call in (first, second, first)]
        tasks = [loop.create_task(third()) for _ in range(3)]
        await asyncio.wait([*calls, *tasks])

    made = Sink(_Bare(function))
    assert apply_here(made, [], dies(0), made).died
    gc.collect()
    assert listed(tmp_path) == {}
    assert (capfd.readouterr().err, caplog.messages) == ("", [])


def test_unawaited_failure_of_a_fault_is_quiet_and_others_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def raises() -> None:
        raise ValueError("of its own")

    async def function() -> None:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(None, call) for call in ((tmp_path / "a").mkdir, raises)]
        await asyncio.wait(calls)

    with sink(function) as apply:
        assert apply_here(apply, [], fails(0)).where == "os.mkdir"
        gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "of its own"
    ]


def test_death_in_a_task_leaves_nobody_waiting(tmp_path: Path) -> None:
    """A task that still waits would wait until the test is ended by its timeout."""

    async def function() -> None:
        asyncio.get_running_loop().call_soon((tmp_path / "one").mkdir)
        await asyncio.Event().wait()

    made = Sink(_Bare(function))
    assert apply_here(made, [], dies(0), made).died
