"""Who may know whom: the imports of the package, and who changes the disk, read from its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import cocoindex_fsmirror

PACKAGE = Path(cocoindex_fsmirror.__file__).parent
SOURCES = {path.stem: ast.parse(path.read_text()) for path in sorted(PACKAGE.glob("*.py"))}
KIT_SOURCES = {
    path.stem: ast.parse(path.read_text()) for path in sorted(PACKAGE.glob("testing/*.py"))
}

# Module: those right below it. It may import these, and all that is below them.
PICTURE = {
    "_errors": set[str](),
    "_paths": {"_errors"},
    "_state": {"_paths"},
    "_reconcile": {"_state"},
    "_ownership": {"_state"},
    "_plan": {"_ownership"},
    "_copying": set[str](),
    "_fs": {"_copying", "_state"},
    "_formats": {"_errors"},
    "_ledger": {"_formats", "_state"},
    "_source": {"_fs"},
    "_suspects": {"_fs", "_ledger"},
    "_comparison": {"_brake", "_suspects"},
    "_observe": {"_suspects", "_plan"},
    "_apply": {"_observe"},
    "_recover": {"_observe"},
    "_sweep": {"_apply"},
    "_brake": {"_paths"},
    "_backups": {"_fs"},
    "_attributes": set[str](),
    "_update": {"_attributes", "_comparison", "_source"},
    "_mirror": {"_backups", "_recover", "_sweep", "_update"},
    "_patterns": set[str](),
    "_survey": {"_fs", "_patterns"},
    "_sources": {"_comparison", "_source", "_survey", "_sweep"},
    "_interrupts": set[str](),
    "_sync": {"_interrupts", "_mirror", "_sources"},
    "_helper": set[str](),
    "_dry_run": {"_sync"},
    "_engine": set[str](),
    "_specs": {"_mirror"},
    "_moving": {"_specs"},
    "_actions": {"_specs"},
    "_open_mirrors": {"_mirror"},
    "_handlers": {"_actions", "_moving", "_open_mirrors", "_reconcile", "_engine"},
    "_roots": {"_handlers"},
    "_target": {"_roots", "_source"},
    "_watch": {"_paths"},
    "_showing": {"_errors"},
    "_streams": set[str](),
    "_arguments": {"_backups", "_brake"},
    "cli": {"_arguments", "_dry_run", "_helper", "_showing", "_streams", "_watch", "__init__"},
    "_command": {"cli"},
    "_hook": set[str](),
    "__init__": {"_hook", "_target"},
}

# The same for the kit, which knows nothing of the package that it judges.
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
PURE = ("_errors", "_paths", "_state", "_reconcile", "_ownership", "_plan")
IMPURE = {"os", "io", "sqlite3", "cocoindex", "pathlib", "time", "random", "logging", "threading"}

KNOW_THE_ENGINE = {"_engine", "_handlers", "_moving", "_roots", "_target"}

# Of the module ``os``.
CHANGES_THE_TREE = {
    *("chmod", "chown", "fchmod", "fchown", "lchown", "utime", "setxattr", "removexattr"),
    *("mkdir", "makedirs", "mkfifo", "mknod", "link", "symlink"),
    *("remove", "unlink", "rmdir", "removedirs", "rename", "renames", "replace"),
    *("write", "writev", "pwrite", "pwritev", "truncate", "ftruncate", "posix_fallocate"),
    *("O_CREAT", "O_RDWR", "O_TRUNC", "O_WRONLY"),
}
CHANGES_A_PATH = {"hardlink_to", "symlink_to", "touch", "write_bytes", "write_text"}


def _imports(module: str, sources: Mapping[str, ast.Module] = SOURCES) -> Iterator[str]:
    """What a module imports: ``.name`` from the package, else the top of another."""
    for node in ast.walk(sources[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield f".{node.module.partition('.')[0]}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f".{alias.name}" if alias.name in sources else ".__init__"


def _below(module: str, picture: Mapping[str, set[str]] = PICTURE) -> set[str]:
    """All that is below a module in the picture."""
    return picture[module].union(*(_below(lower, picture) for lower in picture[module]))


def test_the_picture_shows_every_module_and_no_other() -> None:
    assert set(SOURCES) == set(PICTURE)
    assert set(KIT_SOURCES) == set(KIT_PICTURE)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_downwards_only(module: str) -> None:
    ours = {name.removeprefix(".") for name in _imports(module) if name.startswith(".")}
    assert ours <= _below(module)
    assert "cocoindex_fsmirror" not in set(_imports(module))  # Always relative.


@pytest.mark.parametrize("module", KIT_SOURCES)
def test_the_kit_imports_downwards_only_and_nothing_of_what_it_judges(module: str) -> None:
    imported = set(_imports(module, KIT_SOURCES))
    ours = {name.removeprefix(".") for name in imported if name.startswith(".")}
    assert ours <= _below(module, KIT_PICTURE)
    assert "cocoindex_fsmirror" not in imported
    nodes = [n for n in ast.walk(KIT_SOURCES[module]) if isinstance(n, ast.ImportFrom)]
    assert {node.level for node in nodes} <= {0, 1}  # Never from above.


@pytest.mark.parametrize("module", PURE)
def test_the_pure_modules_know_neither_disk_nor_clock_nor_engine(module: str) -> None:
    allowed = {"pathlib"} if module == "_paths" else set()  # Only for the type PurePath.
    assert set(_imports(module)) & IMPURE <= allowed


def test_a_pure_module_takes_nothing_but_pure_paths_from_pathlib() -> None:
    nodes = [n for n in ast.walk(SOURCES["_paths"]) if isinstance(n, ast.ImportFrom)]
    taken = {alias.name for node in nodes if node.module == "pathlib" for alias in node.names}
    assert taken == {"PurePath"}


@pytest.mark.parametrize(
    ("library", "knowers"),
    [
        ("cocoindex", KNOW_THE_ENGINE),
        ("click", {"_arguments", "_showing", "cli"}),
        ("pathspec", {"_patterns", "_survey"}),
        ("watchdog", {"_watch"}),
        ("rich", {"_showing"}),
        ("sqlite3", {"_formats", "_ledger"}),
        ("ctypes", {"_engine", "_fs"}),
        ("fcntl", {"_copying", "_fs"}),
        ("shutil", set()),
        ("tempfile", {"_source"}),
    ],
)
def test_each_library_is_known_where_it_belongs(library: str, knowers: set[str]) -> None:
    assert {module for module in SOURCES if library in set(_imports(module))} == knowers


def _changes(module: str) -> Iterator[str]:
    """Where a module's source changes something on the disk, by line."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Attribute):
            of_os = ast.unparse(node.value) == "os" and node.attr in CHANGES_THE_TREE
            if of_os or node.attr in CHANGES_A_PATH:
                yield f"{module}.py:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and _opens_to_write(node):
            yield f"{module}.py:{node.lineno}: {ast.unparse(node)}"


def _opens_to_write(call: ast.Call) -> bool:
    """Whether a call is an ``open`` with a mode that writes."""
    name = ast.unparse(call.func).rpartition(".")[2]
    values = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
    modes = [value.value for value in values if isinstance(value, ast.Constant)]
    texts = [mode for mode in modes if isinstance(mode, str)]
    return name in ("open", "fdopen") and any(set(mode) & set("wax+") for mode in texts)


@pytest.mark.parametrize(
    "module", sorted(set(SOURCES) - {"_copying", "_fs", "_helper", "_streams"})
)
def test_only_one_module_changes_the_tree(module: str) -> None:
    assert list(_changes(module)) == []


def test_what_copies_changes_only_what_was_opened_for_it() -> None:
    """It fills files, and neither opens nor names any."""
    calls = {change.rpartition(" ")[2] for change in _changes("_copying")}
    assert calls == {"os.write", "os.ftruncate"}
    assert "os.open" not in {ast.unparse(node) for node in ast.walk(SOURCES["_copying"])}


def test_a_helper_process_writes_to_its_own_pipe_only() -> None:
    calls = {change.partition(" ")[2] for change in _changes("_helper")}
    assert calls == {"os.fdopen(writing, 'wb')"}


def test_standard_streams_are_opened_by_descriptor_or_lead_nowhere() -> None:
    assert {change.rpartition(" ")[2] for change in _changes("_streams")} == {"os.O_RDWR"}
    opened = {ast.unparse(n) for n in ast.walk(SOURCES["_streams"]) if isinstance(n, ast.Call)}
    assert {call for call in opened if call.startswith("os.open")} == {
        "os.open(os.devnull, os.O_RDWR)"
    }


def test_the_module_that_changes_the_tree_is_seen_to_do_so() -> None:
    found = " ".join(_changes("_fs"))
    for call in ("os.rename", "os.unlink", "os.mkdir", "os.rmdir", "os.write", "os.fchmod"):
        assert call in found


@pytest.mark.parametrize("module", SOURCES)
def test_no_function_of_the_system_goes_under_another_name(module: str) -> None:
    """``from os import unlink`` would hide from the test above."""
    nodes = [n for n in ast.walk(SOURCES[module]) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for node in nodes:
        assert not (isinstance(node, ast.ImportFrom) and node.module in ("os", "io", "builtins"))
        assert not any(alias.name == "os" and alias.asname for alias in node.names)


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"cli"}))
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


def test_the_package_imports_next_to_nothing_before_a_name_is_asked_for() -> None:
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
    assert (
        run.stdout
        == "['cocoindex_fsmirror', 'cocoindex_fsmirror._core.errors', 'cocoindex_fsmirror._target.hook']\n"
    )


def test_the_oracles_of_these_tests_share_no_decision_with_the_planner() -> None:
    """What judges the planner may call it, but decides nothing with its parts."""
    decisions = {"fate_of", "judge", "same", "is_settled", "_declares", "_Planner"}
    for name in ("simulation", "reconciling"):
        tree = ast.parse((Path(__file__).parent / "pure" / f"{name}.py").read_text())
        assert not decisions & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
