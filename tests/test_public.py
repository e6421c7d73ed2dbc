"""The public face: complete, documented, and that of ``localfs``."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
import subprocess
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import (
    ApplyError,
    BarrierError,
    ConflictError,
    FsMirrorError,
    InvalidNameError,
    LedgerError,
    LockedError,
    PathError,
    RootError,
    testing,
)
from cocoindex_fsmirror._core import errors as _errors
from cocoindex_fsmirror._target import specs as _specs

PACKAGE = Path(fsmirror.__file__).parent
OURS = [name for name in fsmirror.__all__ if name != "FilePath"]  # The engine defines that type.

SHARED: dict[str, Callable[[types.ModuleType], object]] = {
    "FilePath": lambda module: module.FilePath,
    "DirTarget.declare_file": lambda module: module.DirTarget.declare_file,
    "DirTarget.declare_dir_target": lambda module: module.DirTarget.declare_dir_target,
    "dir_target": lambda module: module.dir_target,
    "declare_dir_target": lambda module: module.declare_dir_target,
    "mount_dir_target": lambda module: module.mount_dir_target,
    "declare_file": lambda module: module.declare_file,
}


# Names


def test_the_list_of_public_names_is_sorted_and_has_no_gaps() -> None:
    assert fsmirror.__all__ == sorted(set(fsmirror.__all__))
    for name in fsmirror.__all__:
        assert getattr(fsmirror, name) is not None
    assert set(fsmirror.__all__) <= set(dir(fsmirror))


def test_every_name_imported_for_users_is_listed() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level and n.module]
    imported = {alias.asname or alias.name for node in relative for alias in node.names}
    assert {name for name in imported if not name.startswith("_")} == set(fsmirror.__all__)


def test_every_error_and_every_public_name_of_the_target_is_exported() -> None:
    from cocoindex_fsmirror._target import declare as _target

    assert {*_errors.__all__, *_target.__all__} <= set(fsmirror.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        fsmirror.no_such_name  # noqa: B018


def test_a_star_import_brings_everything() -> None:
    names: dict[str, object] = {}
    exec("from cocoindex_fsmirror import *", names)
    assert set(fsmirror.__all__) <= names.keys()


def test_windows_is_refused_in_a_sentence() -> None:
    code = """
        import sys
        sys.platform = "win32"
        sys.modules["fcntl"] = None
        try:
            import cocoindex_fsmirror
        except ImportError as error:
            print(error)
    """
    command = [sys.executable, "-c", inspect.cleandoc(code)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "cocoindex-fsmirror" in run.stdout
    assert "Windows" in run.stdout


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_public_names_of_the_kit_are_sorted_and_there() -> None:
    upper, lower = str.isupper, str.islower
    kinds = [
        [name for name in testing.__all__ if upper(name)],
        [name for name in testing.__all__ if not upper(name) and not lower(name)],
        [name for name in testing.__all__ if lower(name)],
    ]
    assert testing.__all__ == [name for kind in kinds for name in sorted(set(kind))]
    assert all(getattr(testing, name) is not None for name in testing.__all__)


# Documentation


def _documented() -> Iterator[tuple[str, object]]:
    """Lists every public class, function and method."""
    for name in OURS:
        public = getattr(fsmirror, name)
        yield name, public
        for part, member in vars(public).items() if inspect.isclass(public) else ():
            if part.startswith("_") or part == "derive":  # Part of Python's protocol.
                continue
            if inspect.isfunction(member) or _is_property(member):
                yield f"{name}.{part}", member
    for name in testing.__all__:
        if inspect.isclass(public := getattr(testing, name)) or inspect.isfunction(public):
            yield f"testing.{name}", public


def _is_property(member: object) -> bool:
    """True if a member of a class is a property."""
    return isinstance(member, property)


DOCUMENTED = dict(_documented())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_is_documented_in_googles_style(name: str) -> None:
    documented = DOCUMENTED[name]
    doc = inspect.cleandoc(documented.__doc__ or "")
    assert re.fullmatch(r"[A-Z].*[.]", doc.partition("\n\n")[0], re.DOTALL), doc
    for parameter in _parameters(documented):
        assert re.search(rf"^    {parameter}: \S", _section(doc, "Args"), re.MULTILINE), parameter


@pytest.mark.parametrize(
    "public",
    [
        fsmirror.Status,
        *(getattr(fsmirror, name) for name in OURS if name.endswith("Error")),
        *(testing.Update, testing.Fault, testing.Disturb, testing.ContractViolation),
    ],
)
def test_every_public_attribute_is_documented(public: Any) -> None:
    attributes = set(_fields(public))
    if not attributes and "__init__" in vars(public):
        attributes |= set(re.findall(r"self\.(\w+) =", inspect.getsource(public.__init__)))
    assert attributes or issubclass(public, Exception)
    section = _section(inspect.cleandoc(public.__doc__ or ""), "Attributes")
    for attribute in attributes:
        assert re.search(rf"^    {attribute}: \S", section, re.MULTILINE), attribute


def _section(doc: str, title: str) -> str:
    """Returns one section of a docstring."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)*)", doc, re.MULTILINE)
    return found[1] if found else ""


def _parameters(documented: object) -> list[str]:
    """Returns the parameters that a docstring has to explain; only we make errors."""
    if isinstance(documented, type) and issubclass(documented, (BaseException, fsmirror.DirTarget)):
        return []
    if _is_property(documented) or _fields(documented):
        return []
    if isinstance(documented, type) and documented.__module__.startswith(testing.__name__):
        return []
    parameters = _parameters_of(_function(documented))
    return [name for name in parameters if name != "self" and not name.startswith("_")]


def _parameters_of(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a function, those of its typed dictionary included."""
    found: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            options = getattr(_specs, parameter.annotation.removeprefix("Unpack[").rstrip("]"))
            for name in options.__optional_keys__:
                kind = inspect.Parameter.KEYWORD_ONLY
                found[name] = inspect.Parameter(name, kind, default=None)
        else:
            found[parameter.name] = parameter
    return found


def _fields(public: object) -> tuple[str, ...]:
    """Returns the fields of a class whose attributes are its fields."""
    names: Iterable[str] = getattr(public, "__struct_fields__", ())
    return tuple(names or getattr(public, "__dataclass_fields__", ()))


def _function(public: object) -> Callable[..., object]:
    """Returns the function below the engine's decorator."""
    assert callable(public)
    function: Callable[..., object] = inspect.unwrap(public)
    return function


# As in localfs


@pytest.mark.parametrize("name", SHARED)
def test_a_flow_moves_over_by_its_import_alone(name: str) -> None:
    theirs = inspect.signature(_function(SHARED[name](localfs))).parameters
    ours = _parameters_of(_function(SHARED[name](fsmirror)))
    assert [(p.name, p.kind) for p in ours.values()][: len(theirs)] == [
        (p.name, p.kind) for p in theirs.values()
    ]
    for parameter in list(ours.values())[len(theirs) :]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
    for parameter in theirs.values():
        needed = parameter.default is inspect.Parameter.empty
        assert (ours[parameter.name].default is inspect.Parameter.empty) is needed
        if parameter.name != "create_parent_dirs" and not needed:
            assert ours[parameter.name].default == parameter.default


@pytest.mark.parametrize("name", [name for name in SHARED if name != "FilePath"])
def test_parents_are_made_by_default(name: str) -> None:
    parameters = inspect.signature(_function(SHARED[name](fsmirror))).parameters
    assert parameters["create_parent_dirs"].default is True


@pytest.mark.parametrize("name", SHARED)
def test_functions_are_async_exactly_where_those_of_localfs_are(name: str) -> None:
    theirs, ours = _function(SHARED[name](localfs)), _function(SHARED[name](fsmirror))
    assert inspect.iscoroutinefunction(theirs) is inspect.iscoroutinefunction(ours)


def test_path_type_is_that_of_localfs() -> None:
    assert fsmirror.FilePath is localfs.FilePath


SNIPPET = """
from pathlib import Path
import cocoindex as coco
from cocoindex_fsmirror import DirTarget, declare_dir_target, mount_dir_target

async def good(given: DirTarget) -> None:
    given.declare_file("a", b"")
    mounted = await mount_dir_target(Path("out"), on_conflict="error")
    mounted.declare_file(Path("a"), "text", mode=0o600)
    used = await coco.use_mount(declare_dir_target, Path("out"))
    used.declare_file("a", b"")

async def bad(given: DirTarget) -> None:
    declare_dir_target(Path("out")).declare_file("a", b"")  # error: misc
    given.declare_dir_target("sub").declare_file("a", b"")  # error: misc
    given.declare_dir_target("sub").declare_dir_target("x")  # error: misc
    given.declare_file("a", 1)  # error: arg-type
    await mount_dir_target(Path("out"), verify="sometimes")  # error: arg-type
    await mount_dir_target(Path("out"), exact=True, verified="stat")  # error: call-arg
    given.declare_dir_target("sub", exact=True)  # error: call-arg
"""


@pytest.mark.slow
def test_type_checker_finds_only_a_target_used_too_early(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    (snippet := tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [*command, str(snippet)],
        check=False,  # mypy is meant to find errors.
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    found = re.findall(r"snippet\.py:(\d+): error: .*\[([\w-]+)\]", run.stdout)
    lines = enumerate(SNIPPET.splitlines(), 1)
    expected = [
        (str(number), line.split("# error: ")[1]) for number, line in lines if "# e" in line
    ]
    assert found == expected, run.stdout + run.stderr


# Errors


def _drawn() -> dict[str, str]:
    """Returns each error and its base, by the drawing at the top of the module."""
    above: dict[str, str] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        drawn = re.match(r"([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if drawn:
            depth = len(drawn[1]) // 4
            path = [*path[:depth], drawn[2]]
            above[drawn[2]] = path[-2] if depth else "Exception"
    return above


def test_tree_of_errors_is_as_drawn() -> None:
    drawn = _drawn()
    assert set(drawn) == set(_errors.__all__)
    for name, above in drawn.items():
        assert getattr(_errors, name).__bases__[0].__name__ == above


ERRORS: dict[str, FsMirrorError] = {
    "InvalidNameError": InvalidNameError("../x", "it leaves"),
    "RootError": RootError("/r", "is a file", "choose another"),
    "LockedError": LockedError("/r", "is locked", "wait"),
    "BarrierError": BarrierError("syncing failed"),
    "LedgerError": LedgerError("disk full"),
    "TooManyRemovalsError": _errors.TooManyRemovalsError("/r", 5, 9, 3, "max_delete 3"),
    "SourceChangedError": _errors.SourceChangedError("/s"),
    "PathError": PathError("a/b", "write", "no space", "free some"),
    "ConflictError": ConflictError("a", "write", "foreign"),
}
GROUP = ApplyError("/r", list(ERRORS.values()))


@pytest.mark.parametrize("name", ERRORS)
def test_error_survives_pickling(name: str) -> None:
    error = ERRORS[name]
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert (str(copied), copied.args) == (str(error), error.args)
    assert vars(copied) == vars(error)


def test_group_survives_pickling() -> None:
    copied = pickle.loads(pickle.dumps(GROUP))
    assert type(copied) is ApplyError
    assert (str(copied), copied.where) == (str(GROUP), "/r")
    assert list(map(str, copied.exceptions)) == list(map(str, ERRORS.values()))


def test_group_names_failed_paths_and_leaves_reasons_to_its_parts() -> None:
    assert str(GROUP) == (
        "/r: 9 failed: InvalidNameError, '/r', '/r', BarrierError, LedgerError, '/r', '/s', 'a/b', "
        "'a' (9 sub-exceptions)"
    )
    shown = "".join(traceback.format_exception(GROUP))
    assert [shown.count(str(error)) for error in ERRORS.values()] == [1] * len(ERRORS)


def test_a_group_of_groups_names_their_roots() -> None:
    roots = [ApplyError("/r", [ERRORS["PathError"]]), ERRORS["RootError"]]
    assert str(ApplyError("2 mirrors", roots)).startswith("2 mirrors: 2 failed: '/r', '/r' (")


def test_a_group_of_many_failures_names_the_first() -> None:
    many = ApplyError("/r", [PathError(str(number), "write", "no") for number in range(1000)])
    assert str(many).startswith("/r: 1000 failed: '0', '1', ")
    assert "'9' and 990 more (1000 sub" in str(many)


def test_a_group_splits_by_kind() -> None:
    paths, rest = GROUP.split(PathError)
    assert isinstance(paths, ApplyError)
    assert isinstance(rest, ApplyError)
    assert {type(error) for error in paths.exceptions} == {PathError, ConflictError}
    assert len(rest.exceptions) == len(ERRORS) - 2
    assert paths.where == rest.where == "/r"
    assert str(paths).startswith("/r: 2 failed")


def test_except_star_takes_each_kind_of_failure() -> None:
    taken: list[type[BaseException]] = []
    try:
        raise ApplyError("/r", [ERRORS["ConflictError"], ERRORS["BarrierError"]])
    except* ConflictError as group:
        taken += [type(error) for error in group.exceptions]
    except* FsMirrorError as group:
        taken += [type(error) for error in group.exceptions]
    assert taken == [ConflictError, BarrierError]


def test_a_group_is_caught_as_any_error_of_ours() -> None:
    with pytest.raises(FsMirrorError):
        raise GROUP
    with pytest.raises(ExceptionGroup):
        raise GROUP


@pytest.mark.parametrize("name", ["PathError", "ConflictError", "RootError", "InvalidNameError"])
def test_an_error_says_which_path_and_what_to_do(name: str) -> None:
    error = ERRORS[name]
    for value in vars(error).values():
        assert str(value) in str(error)
