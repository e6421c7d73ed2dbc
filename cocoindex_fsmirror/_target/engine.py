"""Differences between the releases of the engine that we support, and its threads."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import itertools
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import cocoindex as coco
from cocoindex._internal import core, environment

from .._disk.calls import identity_of

__all__ = [
    "HAS_CHILD_FACTORY",
    "RETRIES_IN_PARTS",
    "Component",
    "Components",
    "component_in_use",
    "components_in",
    "database_in_use",
    "database_of",
    "is_live",
    "make_sink",
    "path_of",
    "provider_in_use",
    "stay_attached",
]

_ActionT = TypeVar("_ActionT")

HAS_CHILD_FACTORY: Final = (
    "child_handler" in inspect.signature(coco.TargetActionSink.from_fn).parameters
)
"""True if a sink takes a factory for the handlers of children (from 1.0.23), which
preview needs. Before, the sink returned a ``ChildTargetDef`` for each action."""

RETRIES_IN_PARTS: Final = HAS_CHILD_FACTORY
"""True if the engine tries parts of a batch that failed (from 1.0.23)."""

# The types of the engine's context provider and handlers are not public.
_Apply = Callable[[Any, Sequence[_ActionT]], None]
_ChildHandler = Callable[[Any, _ActionT], Any]


def database_in_use() -> tuple[str, str]:
    """Returns path and identity of the database that is being updated; empty if unknown."""
    try:
        # No release has a public way to ask for it.
        return _database_of(coco.get_component_context()._env)  # noqa: SLF001
    except (AttributeError, LookupError, RuntimeError):
        return "", ""


def provider_in_use() -> Any:
    """Returns what provides contexts to the update; ``None`` if there is none here."""
    try:
        return coco.get_component_context()._env._context_provider  # noqa: SLF001
    except (AttributeError, LookupError, RuntimeError):
        return None


def database_of(context_provider: Any) -> tuple[str, str]:
    """Returns path and identity of the database behind an action; empty if unknown."""
    environment = _environment_of(context_provider)
    return ("", "") if environment is None else _database_of(environment)


def _environment_of(context_provider: Any) -> Any:
    """Returns the environment with a context provider; no release has a public way."""
    try:
        infos = environment.get_registered_environment_infos()
        found = [getattr(info.env, "_env", None) or info.env for info in infos]
        return next(e for e in found if getattr(e, "_context_provider", 0) is context_provider)
    except (AttributeError, StopIteration):
        return None


def _database_of(environment: Any) -> tuple[str, str]:
    """Returns path and identity of an environment's database, which is a folder.

    A new database often gets the inode number of a lost one. Nothing is added to the folder once
    it is there, so that its mtime tells them apart, also after a move.
    """
    path = os.path.abspath(environment.settings.db_path)
    with contextlib.suppress(OSError):
        return path, identity_of(path)
    return path, ""


class Component(NamedTuple):
    """A component, as the engine's database has it.

    Attributes:
        has_succeeded: True if it has run to its end, ever.
        paths: The paths of what it declares below a root, as :func:`path_of` returns them.
    """

    has_succeeded: bool
    paths: frozenset[str]


_PROVIDER: Final = re.compile(r"\[provider_id=\d+\]$")
Components: TypeAlias = Mapping[str, Component]
"""The components of an app, by path."""


def components_in(
    context_provider: Any, provider: str, root: tuple[str | None, str | bytes]
) -> list[Components]:
    """Returns the components of each app that declares a root.

    Args:
        context_provider: That of an action.
        provider: The name of the provider of roots.
        root: The key of the root.

    Returns:
        The components, one mapping an app; none if that can't be told.
    """
    found = _environment_of(context_provider)
    if found is None:
        return []
    declaring: list[Components] = []
    for app in core.list_app_names(found._core_env):  # noqa: SLF001
        listed = _details(found._core_env, app)  # noqa: SLF001
        items = [item for each in listed for item in each.target_state_items if item.key == root]
        paths = {item.target_state_path for item in items}
        mine = [path for path in paths if path.startswith(f"/@{provider}/")]
        if mine:
            declaring.append({each.path.to_string(): _below(mine[0], each) for each in listed})
    return declaring


def _details(core_env: Any, app: str) -> list[Any]:
    """Lists the components of an app; the engine lists none that is below another one."""
    found: dict[str, Any] = {}
    to_do = [core.StablePath()]
    while to_do:
        for each in core.query_stable_path_details_by_name(
            core_env, app, to_do.pop(), True, True, False
        ):
            if each.path.to_string() not in found:
                found[each.path.to_string()] = each
                to_do.append(each.path)
    return list(found.values())


def _below(root: str, component: Any) -> Component:
    """Returns a component, with the paths of what it declares below a root."""
    found = [item.target_state_path for item in component.target_state_items]
    below = [path.removeprefix(root) for path in found if path.startswith(f"{root}/")]
    return Component(component.version > 0, frozenset(_PROVIDER.sub("", path) for path in below))


def path_of(keys: Iterable[str | bytes]) -> str:
    """Returns the path of a target state, given its key and those of the targets that it is in."""
    path = core.StablePath()
    for key in keys:
        path = path.concat(key)
    return path.to_string()


def component_in_use() -> str:
    """Returns the path of the component that calls; empty outside of one."""
    try:
        return str(coco.get_component_context())
    except RuntimeError:
        return ""


def is_live() -> bool:
    """True if the update goes on, and follows changes; false if that is unknown."""
    try:
        # Nor for this.
        return coco.get_component_context()._core_processor_ctx.live  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return False


_MOST_ATTACHED: Final = 128


_thread = threading.local()
_attached = itertools.count()


def stay_attached() -> None:
    """Keeps the calling thread's ``PyThreadState`` alive between calls.

    The engine's threads are not Python's: CPython makes a thread state for every call from
    one, with a stack that is mapped and unmapped again, and destroys it afterwards. That is
    8 us, twice for each file. A thread that holds one reference more keeps its state, and its
    ``threading.local`` values, as the threads of a pool do. The reference is never given back,
    because nobody tells us when such a thread ends; hence only the first threads hold one, for
    5 KB each.

    The one trick of this kind: it takes a fifth off a first run, more than the tenth that
    a trick has to be worth (``benchmarks/README.md`` has the measurement).
    """
    if not hasattr(_thread, "is_attached") and next(_attached) < _MOST_ATTACHED:
        _thread.is_attached = True
        ctypes.pythonapi.PyGILState_Ensure()


def make_sink(
    apply: _Apply[_ActionT], child_handler: _ChildHandler[_ActionT]
) -> coco.TargetActionSink[_ActionT]:
    """Makes a synchronous sink that knows the handlers of the children of containers.

    Args:
        apply: Carries out a batch of actions.
        child_handler: Returns the handler of the children of a container; ``None`` for an
            action that neither creates nor updates one.
    """
    if HAS_CHILD_FACTORY:
        return coco.TargetActionSink.from_fn(apply, child_handler=child_handler)

    def apply_and_define(
        context_provider: Any, actions: Sequence[_ActionT]
    ) -> list[coco.ChildTargetDef[Any] | None]:
        try:
            apply(context_provider, actions)
        except BaseException:
            del actions  # Whoever keeps the error would keep all that the actions refer to.
            raise
        handlers = (child_handler(context_provider, action) for action in actions)
        return [h if h is None else coco.ChildTargetDef(handler=h) for h in handlers]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.TargetActionSink.from_fn(apply_and_define)
