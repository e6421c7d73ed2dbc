"""Does something as soon as a module is imported, if ever."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # That of typing, whose import takes longer than all of ours.
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["when_imported"]


def when_imported(name: str, act: Callable[[], object]) -> None:
    """Calls a function once a module has been imported: now, if it has been already.

    Args:
        name: The module, a top-level one.
        act: What to do; what it raises is raised by the import.
    """
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds one module where all others do, and has us told when it has been loaded."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the next finder says."""
        if name != self._name:
            return None
        rest = sys.meta_path[sys.meta_path.index(self) + 1 :]  # Those before us know nothing.
        found = (finder.find_spec(name, path, target) for finder in rest)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._done)  # type: ignore[assignment]
        return spec

    def _done(self) -> None:
        """The module is there; another import of it is none of our business."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._act()


class _Loader:
    """Loads a module as its own loader does, steps back, and tells."""

    def __init__(self, loader: Loader, done: Callable[[], None]) -> None:
        self._loader = loader
        self._done = done

    def __getattr__(self, name: str) -> object:
        """What else is asked of a loader; its specification can be had without an import."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._done()
