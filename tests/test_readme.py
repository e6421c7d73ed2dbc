"""Code and commands of the READMEs run, and their tables are true."""

from __future__ import annotations

import inspect
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from click.testing import CliRunner

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import DirTarget, testing
from cocoindex_fsmirror._command.main import main as command
from tests.support import backups, contents, snapshot

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
KIT = (TOP / "cocoindex_fsmirror" / "testing" / "README.md").read_text(encoding="utf-8")
TESTS = (TOP / "tests" / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def _blocks(page: str, language: str) -> list[str]:
    """Returns the blocks of code of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def _section(page: str, heading: str) -> str:
    """Returns the text below a heading, up to the next one."""
    return re.split(r"^##+ ", page.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


FLOW, COSTLY = _blocks(README, "python")


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 200
    for page, folder in ((README, TOP), (KIT, TOP / "cocoindex_fsmirror" / "testing")):
        for target in re.findall(r"\]\(([^)#]+)\)", page):
            assert target.startswith("https://") or (folder / target).is_file(), target


def test_hosted_checks_run_both_commands_on_each_python_that_is_claimed() -> None:
    workflow = (TOP / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    matrix = next(line for line in workflow.splitlines() if line.strip().startswith("python: ["))
    pythons = [
        f"Programming Language :: Python :: {each}" for each in re.findall(r"[\d.]+", matrix)
    ]
    claimed = [each for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert pythons == claimed
    run = re.findall(r"run: bash \.ci/readme (\w+)", workflow)
    assert run == re.findall(r"bash \.ci/readme (\w+)", (TOP / ".ci" / "run").read_text())
    assert all(f"\n## {heading}\n" in README for heading in run)


def test_the_design_names_every_module_and_no_other() -> None:
    package = TOP / "cocoindex_fsmirror"
    house = _section((package / "DESIGN.md").read_text(encoding="utf-8"), "The house")
    for room in ("_core", "_disk", "_mirror", "_target", "_command"):
        text = re.split(r"^(?:- |$)", house.partition(f"- `{room}`: ")[2], flags=re.MULTILINE)[0]
        there = {path.stem for path in (package / room).glob("*.py")} - {"__init__"}
        assert {*re.findall(r"`([a-z_]+)`", text)} == there, room


# The flow


def _update(folder: Path) -> str:
    """Runs ``cocoindex update main.py`` in a folder; returns what it prints."""
    command = [str(BIN / "cocoindex"), "update", "main.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout + run.stderr


def _lay_out(folder: Path, code: str) -> Path:
    """Makes a project with two documents; returns the folder of its outputs."""
    (folder / "docs" / "sub").mkdir(parents=True)
    (folder / "docs" / "a.md").write_text("A")
    (folder / "docs" / "sub" / "b.md").write_text("B")
    (folder / "main.py").write_text(code)
    return folder / "site"


def test_flow_renders_once_and_heals_edited_or_deleted_outputs(tmp_path: Path) -> None:
    site = _lay_out(tmp_path, FLOW)
    assert "render: 2 total | 2 added" in _update(tmp_path)
    expected = {"a.html": b"<pre>A</pre>\n", "sub/b.html": b"<pre>B</pre>\n"}
    assert contents(snapshot(site)) == expected
    assert "render: 2 total | 2 unchanged" in _update(tmp_path)
    (site / "a.html").write_text("tampered")
    (site / "sub" / "b.html").unlink()
    assert "render: 2 total | 2 unchanged" in _update(tmp_path)
    assert contents(snapshot(site)) == expected
    assert backups(site) == [b"tampered"]
    (tmp_path / "docs" / "sub" / "b.md").unlink()
    _update(tmp_path)
    assert snapshot(site) == {"a.html": b"<pre>A</pre>\n"}


def test_costly_flow_asks_no_model_again_when_its_outputs_are_deleted(tmp_path: Path) -> None:
    assert len([line for line in COSTLY.splitlines() if line]) <= 20
    imports = [line for line in FLOW.splitlines() if "import" in line]
    (tmp_path / "main.py").write_text("\n".join([*imports, COSTLY]))
    command = [sys.executable, "main.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = (line for line in run.stdout.splitlines() if "calls" in line)
    assert before == after
    assert sorted(before.split()) == ["1", "2", "2", "answer", "answer", "calls:"]


def test_memoized_call_is_not_repeated_where_an_output_has_no_copy(tmp_path: Path) -> None:
    code = FLOW.replace(
        "@coco.fn(memo=True)\n",
        "@coco.fn(memo=True)\nasync def ask(text: str) -> str:\n"
        '    print("asked")\n    return text * 2\n\n@coco.fn(memo=True)\n',
    ).replace("await file.read_text()", "await ask(await file.read_text())")
    site = _lay_out(tmp_path, code)
    assert _update(tmp_path).count("asked") == 2
    (site / ".fsmirror" / "copies.sqlite3").unlink()
    (site / "a.html").unlink()
    told = _update(tmp_path)
    assert "render: 2 total | 1 reprocessed, 1 unchanged" in told
    assert "asked" not in told
    assert contents(snapshot(site))["a.html"] == b"<pre>AA</pre>\n"


# The command


def test_every_command_is_shown_and_each_line_runs(tmp_path: Path) -> None:
    (source := tmp_path / "src").mkdir()
    (source / "a").write_text("1")
    target = tmp_path / "dst"
    places = {"SRC": source, "DST": target, "LINK": tmp_path / "link", "/PATH": "/a"}
    lines = _blocks(README, "sh")[1].splitlines()
    assert [line.split()[1] for line in lines] == ["sync", *command.commands]
    for line in lines:
        words = line.partition("#")[0].split()[1:]
        for name, place in places.items():
            words = [word.replace(name, str(place)) for word in words]
        if "--watch" in words:
            _watch(words)
            (target / "a").write_text("edited")
            assert CliRunner().invoke(command, ["sync", *words[1:3]]).exit_code == 0
        else:
            more = ["--yes"] if words[0] == "drop" else []
            assert CliRunner().invoke(command, [*words, *more]).exit_code == 0, words
        if words[0] == "backups":
            (target / "a").unlink()
            for more in (["restore", "a"], ["purge", "--older-than", "30d"]):
                assert CliRunner().invoke(command, [*words, *more]).exit_code == 0, more


def _watch(words: list[str]) -> None:
    """Runs a command up to its first line, then interrupts it."""
    with subprocess.Popen([BIN / "fsmirror", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "written" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


# The tables


def _table(page: str, heading: str, first: str) -> list[list[str]]:
    """Returns the cells of a table below a heading, by the head of its first column."""
    text = page.partition(f"## {heading}\n")[2]
    lines = text[text.index(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def _options(function: Callable[..., Any]) -> set[str]:
    """Returns the keyword-only arguments of a function."""
    function = getattr(function, "_orig_sync_fn", function)
    found = inspect.signature(function).parameters.values()
    nested = inspect.get_annotations(function, eval_str=True).get("options")
    more = get_args(nested)[0].__optional_keys__ if nested is not None else set()
    return {each.name for each in found if each.kind is each.KEYWORD_ONLY} | more


def test_the_table_of_options_says_which_function_takes_which() -> None:
    rows = _table(README, "Options", "option")
    taken: list[set[str]] = [set(), set(), set()]
    for row in rows:
        for column, cell in zip(taken, row[2:5], strict=True):
            if cell != "no":
                column.add(row[0].strip("`"))
    for name in ("mount_dir_target", "dir_target", "declare_dir_target"):
        assert _options(getattr(fsmirror, name)) == taken[0], name
    assert _options(DirTarget.declare_dir_target) == taken[1]
    assert _options(fsmirror.declare_file) == taken[2]


@pytest.mark.parametrize("option", ["durability", "on_conflict", "copies", "verify"])
def test_the_table_of_options_has_every_value(option: str) -> None:
    row = next(row for row in _table(README, "Options", "option") if row[0] == f"`{option}`")
    nested = inspect.get_annotations(fsmirror.dir_target, eval_str=True)["options"]
    annotation = str(get_type_hints(get_args(nested)[0])[option])
    assert re.findall(r'`"([a-z]+)"`', row[1]) == re.findall(r"'([a-z]+)'", annotation)


def test_the_table_of_declarations_is_complete() -> None:
    rows = _table(README, "Options", "method")
    methods = [name for name in vars(DirTarget) if name.startswith("declare_")]
    assert [re.findall(r"(declare_\w+)", row[0])[0] for row in rows] == methods
    for row in rows[:-1]:
        method = getattr(DirTarget, re.findall(r"(declare_\w+)", row[0])[0])
        assert {*re.findall(r"`(\w+)`", row[1])} | {"create_parent_dirs"} == _options(method)


def test_every_guarantee_names_tests_that_exist() -> None:
    rows = [line for line in TESTS.splitlines() if re.match(r"\| \d+ ", line)]
    numbered = re.findall(r"^\d+\. \*\*", _section(README, "Guarantees"), re.MULTILINE)
    assert len(rows) == len(numbered) == 15
    for row in rows:
        last = row.rstrip("| ").rpartition("|")[2]
        named = re.findall(r"`([a-z_0-9/]+)(?:::([a-z_0-9]+))?`", last)
        assert named, row
        for path, function in named:
            file = TOP / "tests" / f"{path}.py"
            assert file.is_file(), f"{file} does not exist"
            assert f"def {function or 'test_'}" in file.read_text(encoding="utf-8"), function


# The tests


def test_page_about_tests_describes_every_folder_and_repeats_a_crash(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _table(TESTS, "Folders", "folder")
    folders = {path.parent.name for path in (TOP / "tests").glob("*/*") if path.is_file()}
    assert {row[0].strip("`") for row in rows} == folders - {"__pycache__"}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (block,) = _blocks(TESTS, "python")
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # The page's own code.
    assert re.search(r"/root (before|after|inside) .* \[\]\n$", capfd.readouterr().out)


# The kit


@pytest.mark.slow
def test_shelf_passes_and_writing_in_place_fails_in_the_shown_words() -> None:
    (block,) = _blocks(KIT, "python")
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)  # The page's own code.
    names["test_shelf"]()
    testing.check_target(names["Shelf"], settings=testing.PROFILES["dev"], atomic=True)
    beside = re.search(
        r"^ +\(self.at / f.*?\.replace\(self.at / name\)\n", block, re.MULTILINE | re.DOTALL
    )
    assert beside is not None
    in_place = " " * 16 + "(self.at / name).write_bytes(content)\n"
    exec(compile(block.replace(beside[0], in_place), "README.md", "exec"), names)
    (told,) = (text.rstrip("\n") for text in _blocks(KIT, "text"))
    with pytest.raises(testing.ContractViolation) as caught:
        testing.check_target(names["Shelf"], settings=testing.PROFILES["ci"])
    assert caught.value.rule is testing.Rule.CONVERGES
    with pytest.raises(testing.ContractViolation) as caught:
        exec(told.partition("To run it again:\n")[2], names)
    assert str(caught.value) == told


def test_every_rule_of_the_kit_is_in_its_table() -> None:
    rows = _table(KIT, "Rules", "rule")
    assert [re.split(r" \(", row[0])[0] for row in rows] == [rule.title for rule in testing.Rule]


def test_table_of_file_systems_names_all_that_are_tried() -> None:
    from tests.disk.grounds import KINDS

    rows = _table(TESTS, "File systems", "file system")
    assert [row[0] for row in rows] == [kind.name for kind in KINDS]
