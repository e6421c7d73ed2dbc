"""Calls a function as soon as a module is imported, if ever.

So our provider is registered although neither package imports the other at its start.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # That of typing, whose import takes longer than all of ours.
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["when_imported"]


def when_imported(name: str, act: Callable[[], object]) -> None:
    """Calls a function once a module has been imported: now, if it has been already.

    Args:
        name: The module, a top-level one.
        act: The function; the import raises any exception of it.
    """
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds one module as the other finders do, and hooks into its loader."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the specification from the finders after this one, hooked."""
        if name != self._name:
            return None
        # The finders before this one have found nothing.
        rest = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (finder.find_spec(name, path, target) for finder in rest)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader, load = spec.loader, spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                vars(loader).pop("exec_module", None)
                load(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._act()

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
