"""Imports between rooms, and changes of the disk, checked in the source of the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cocoindex_fsmirror

PACKAGE = Path(cocoindex_fsmirror.__file__).parent
SOURCES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name in SOURCES if not name.startswith("testing/")]
KIT = [name for name in SOURCES if name.startswith("testing/")]

# Each room, and the rooms that its modules may import.
ROOMS = {
    "_core": set[str](),
    "_disk": {"_core"},
    "_mirror": {"_core", "_disk"},
    "_target": {"_core", "_disk", "_mirror"},
    "_command": {"_core", "_disk", "_mirror"},
    "testing": set[str](),
}
MOST_STEPS = 13

# The kit knows nothing of the package that it judges.
KIT_PICTURE = {
    "_history": set[str](),
    "_profiles": set[str](),
    "_same": set[str](),
    "_storage": set[str](),
    "_strategies": set[str](),
    "_adapter": {"_history"},
    "_engine": {"_history", "_storage"},
    "_rules": {"_history"},
    "_steps": {"_history"},
    "_text": {"_history"},
    "_asking": {"_engine", "_rules", "_same", "_text"},
    "_sink": {"_adapter", "_steps"},
    "_world": {"_asking", "_sink"},
    "_judging": {"_world"},
    "_updating": {"_judging"},
    "_check": {"_updating"},
    "__init__": {"_check", "_profiles", "_strategies"},
}
IMPURE = {"os", "io", "sqlite3", "cocoindex", "time", "random", "logging", "threading"}

# Functions and flags of the module ``os``.
CHANGES_THE_TREE = {
    *("chmod", "chown", "fchmod", "fchown", "lchown", "utime", "setxattr", "removexattr"),
    *("mkdir", "makedirs", "mkfifo", "mknod", "link", "symlink"),
    *("remove", "unlink", "rmdir", "removedirs", "rename", "renames", "replace"),
    *("write", "writev", "pwrite", "pwritev", "truncate", "ftruncate", "posix_fallocate"),
    *("O_CREAT", "O_RDWR", "O_TRUNC", "O_WRONLY"),
}
NO_SUBJECTS = {"it", "that", "they", "there", "these", "what", "whatever", "who", "whoever"}
CHANGES_A_PATH = {"hardlink_to", "symlink_to", "touch", "write_bytes", "write_text"}


def _imports(module: str) -> Iterator[str]:
    """Yields what a module imports: a module of the package by its path, or a library by name."""
    folder = module.split("/")[:-1]
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1]
            place = "/".join([*above, *(node.module or "").split(".")]).strip("/")
            if place in SOURCES:
                yield place
            else:  # The names are modules, or those of the package itself.
                paths = ("/".join(filter(None, (place, alias.name))) for alias in node.names)
                yield from (
                    path if path in SOURCES else f"{place}/__init__".strip("/") for path in paths
                )


def _ours(module: str) -> set[str]:
    """Returns the modules of the package that a module imports."""
    return {name for name in _imports(module) if "/" in name or name in SOURCES}


def _room(module: str) -> str:
    """Returns the room that a module is in; empty for the package itself."""
    return module.rpartition("/")[0]


@cache
def _steps(module: str) -> int:
    """Counts the steps down to the ground; an import that leads in circles never ends."""
    return 1 + max((_steps(lower) for lower in _ours(module) - {"__init__"}), default=0)


@pytest.mark.parametrize("module", [name for name in SOURCES if _room(name)])
def test_room_imports_only_the_rooms_below_it(module: str) -> None:
    rooms = {_room(name) for name in _ours(module) if name != "__init__"}
    assert rooms <= {*ROOMS[_room(module)], _room(module)}
    assert "cocoindex_fsmirror" not in set(_imports(module))  # Always relative.


def test_imports_lead_down_in_few_steps() -> None:
    doors = {"__init__", "__main__"}
    assert max(_steps(module) for module in SOURCES if module not in doors) <= MOST_STEPS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_nothing_by_itself(room: str) -> None:
    if room != "testing":
        assert (PACKAGE / room / "__init__.py").read_text() == ""


@pytest.mark.parametrize("module", KIT)
def test_the_kit_imports_downwards_only(module: str) -> None:
    name = module.removeprefix("testing/")
    assert {ours.removeprefix("testing/") for ours in _ours(module)} <= _below(name)


def _below(module: str) -> set[str]:
    """Returns all that is below a module in the picture of the kit."""
    return KIT_PICTURE[module].union(*(_below(lower) for lower in KIT_PICTURE[module]))


def test_picture_of_the_kit_shows_every_module_and_no_other() -> None:
    assert {module.removeprefix("testing/") for module in KIT} == set(KIT_PICTURE)


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) == "_core"])
def test_core_imports_neither_disk_nor_clock_nor_engine(module: str) -> None:
    assert not IMPURE & set(_imports(module))
    nodes = [n for n in ast.walk(SOURCES[module]) if isinstance(n, ast.ImportFrom)]
    taken = {alias.name for node in nodes if node.module == "pathlib" for alias in node.names}
    assert taken <= {"PurePath"}


@pytest.mark.parametrize(
    ("library", "knowers"),
    [
        ("cocoindex", {"_target"}),
        ("click", {"_command"}),
        ("rich", {"_command"}),
        ("pathspec", {"_core"}),
        ("watchdog", set()),
        ("sqlite3", {"_mirror"}),
        ("fcntl", {"_disk"}),
        ("tempfile", {"_disk"}),
        ("shutil", set()),
    ],
)
def test_each_library_is_imported_in_one_room(library: str, knowers: set[str]) -> None:
    assert {_room(module) for module in MODULES if library in set(_imports(module))} == knowers


def _changes(module: str) -> Iterator[str]:
    """Lists the lines of a module that change the disk."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Attribute):
            of_os = ast.unparse(node.value) == "os" and node.attr in CHANGES_THE_TREE
            if of_os or node.attr in CHANGES_A_PATH:
                yield f"{module}.py:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and _opens_to_write(node):
            yield f"{module}.py:{node.lineno}: {ast.unparse(node)}"


def _opens_to_write(call: ast.Call) -> bool:
    """True if a call is an ``open`` with a mode that writes."""
    name = ast.unparse(call.func).rpartition(".")[2]
    values = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
    modes = [value.value for value in values if isinstance(value, ast.Constant)]
    texts = [mode for mode in modes if isinstance(mode, str)]
    return name in ("open", "fdopen") and any(set(mode) & set("wax+") for mode in texts)


# A descriptor that it was given, or its own pipe or stream.
CHANGES_ONLY_ITS_OWN = {"_command/helper", "_command/process"}


@pytest.mark.parametrize("module", MODULES)
def test_only_one_room_changes_the_tree(module: str) -> None:
    if _room(module) != "_disk" and module not in CHANGES_ONLY_ITS_OWN:
        assert list(_changes(module)) == []


def test_copying_changes_only_open_descriptors() -> None:
    """The functions that copy fill files, and neither open nor name any."""
    functions = [n for n in SOURCES["_disk/calls"].body if isinstance(n, ast.FunctionDef)]
    used = {f.name: {ast.unparse(n) for n in ast.walk(f)} for f in functions}
    writers = {name for name, nodes in used.items() if {"os.write", "os.ftruncate"} & nodes}
    assert writers == {"allocate", "copy", "write_all"}
    opening = {"os.open", "open_file", *(f"os.{name}" for name in CHANGES_THE_TREE)}
    assert {node for name in writers for node in used[name] & opening} == {
        "os.write",
        "os.ftruncate",
        "os.posix_fallocate",
    }


def test_a_helper_process_writes_to_its_own_pipe_only() -> None:
    calls = {change.partition(" ")[2] for change in _changes("_command/helper")}
    assert calls == {"os.fdopen(writing, 'wb')"}


def test_standard_streams_are_opened_by_descriptor_or_lead_nowhere() -> None:
    assert {change.rpartition(" ")[2] for change in _changes("_command/process")} == {"os.O_RDWR"}
    opened = {
        ast.unparse(n) for n in ast.walk(SOURCES["_command/process"]) if isinstance(n, ast.Call)
    }
    assert {call for call in opened if call.startswith("os.open")} == {
        "os.open(os.devnull, os.O_RDWR)"
    }


def test_changes_in_the_room_of_the_disk_are_detected() -> None:
    disk = (module for module in MODULES if _room(module) == "_disk")
    found = " ".join(change for module in disk for change in _changes(module))
    for call in ("os.rename", "os.unlink", "os.mkdir", "os.rmdir", "os.write", "os.fchmod"):
        assert call in found


@pytest.mark.parametrize("module", SOURCES)
def test_no_function_of_the_system_goes_under_another_name(module: str) -> None:
    """``from os import unlink`` would hide from the test above."""
    nodes = [n for n in ast.walk(SOURCES[module]) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for node in nodes:
        assert not (isinstance(node, ast.ImportFrom) and node.module in ("os", "io", "builtins"))
        assert not any(alias.name == "os" and alias.asname for alias in node.names)


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) != "_command"])
def test_the_library_prints_nothing(module: str) -> None:
    calls = [n for n in ast.walk(SOURCES[module]) if isinstance(n, ast.Call)]
    assert not {"print", "sys.stdout.write", "sys.stderr.write"} & {
        ast.unparse(call.func) for call in calls
    }


def test_a_mirror_is_used_without_loading_the_engine() -> None:
    code = (
        "import sys, cocoindex_fsmirror; cocoindex_fsmirror.Mirror('.');"
        "assert 'cocoindex' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_package_imports_next_to_nothing_before_a_name_is_used() -> None:
    code = (
        "import sys, cocoindex_fsmirror;"
        "print(sorted(n for n in sys.modules if n.startswith('cocoindex')));"
        "assert not {'sqlite3', 'msgspec', 'click', 'pathlib', 'typing'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    rooms = {"_core", "_core.errors", "_target", "_target.hook"}
    names = {"cocoindex_fsmirror", *(f"cocoindex_fsmirror.{name}" for name in rooms)}
    assert set(ast.literal_eval(run.stdout)) == names


def test_oracles_share_no_decision_with_the_planner() -> None:
    """An oracle may call the planner, but decides nothing with the planner's parts."""
    decisions = {"fate_of", "judge", "same", "coalesce", "_Planner"}
    for name in ("core/simulation", "target/reconciling"):
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        assert not decisions & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("module", MODULES)
def test_files_and_classes_are_short(module: str) -> None:
    lines = (PACKAGE / f"{module}.py").read_text().splitlines()
    assert len(lines) <= 400
    classes = [node for node in ast.walk(SOURCES[module]) if isinstance(node, ast.ClassDef)]
    assert [c.name for c in classes if (c.end_lineno or 0) - c.lineno >= 250] == []


def test_test_files_are_short_and_their_tests_have_subjects() -> None:
    tests = Path(__file__).parent
    sources = {str(path.relative_to(tests)): path.read_text() for path in tests.rglob("*.py")}
    lengths = {path: len(source.splitlines()) for path, source in sources.items()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
    names = re.findall(r"^(?:async )?def test_(\w+)", "\n".join(sources.values()), re.MULTILINE)
    assert [name for name in names if len(f"test_{name}") > 70] == []
    assert [name for name in names if name.partition("_")[0] in NO_SUBJECTS] == []
