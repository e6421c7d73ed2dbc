"""The README says what is so: its code runs, and its tables point at tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import cocoindex as coco
import pytest

from cocoindex_fsmirror import Mirror, mount_dir_target, testing
from cocoindex_fsmirror._command import main as cli
from cocoindex_fsmirror._target import specs as _specs
from tests.support import contents, snapshot, write

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def _section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(r"^##+ ", README.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


def test_the_flow_renders_and_heals_what_was_tampered_with(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)  # The README's own code.
    source, out = tmp_path / "docs", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    (source / "a.md").write_text("A")
    (source / "sub" / "b.md").write_text("B")
    environment = coco.Environment(coco.Settings(db_path=tmp_path / "db"))
    environment.context_provider.provide(names["DOCS"], source)
    environment.context_provider.provide(names["OUT"], out)
    app = coco.App(coco.AppConfig(name="readme", environment=environment), names["main"])
    app.update_blocking()
    expected = {"a.html": b"<pre>A</pre>\n", "sub/b.html": b"<pre>B</pre>\n"}
    assert contents(snapshot(out)) == expected
    (out / "a.html").write_text("tampered")
    app.update_blocking()
    assert contents(snapshot(out)) == expected


def test_any_file_can_be_declared(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    imports = BLOCKS[0].partition("\nDOCS")[0]
    exec(compile(imports + BLOCKS[1], "README.md", "exec"), names)  # The README's own code.
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "video.mp4").write_bytes(b"v" * 3_000_000)
    (source / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)

    async def main() -> None:
        await names["assets"](source, await mount_dir_target(out))

    environment = coco.Environment(coco.Settings(db_path=tmp_path / "db"))
    coco.App(coco.AppConfig(name="readme", environment=environment), main).update_blocking()
    assert snapshot(out) == {
        "video.mp4": b"v" * 3_000_000,
        "run.sh": b"#!/bin/sh\n",
        "latest.mp4": "-> video.mp4",
        "secret.txt": b"s3cret",
        "uploads": "dir",
    }
    assert (out / "run.sh").stat().st_mtime_ns == (source / "run.sh").stat().st_mtime_ns
    assert (out / "run.sh").stat().st_mode == (source / "run.sh").stat().st_mode


def test_every_command_is_in_its_table() -> None:
    rows = re.findall(r"^\| `fsmirror ([a-z]+)", _section("The command line"), re.MULTILINE)
    assert sorted(rows) == sorted(cli.main.commands)


def test_the_mirror_tells_about_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Mirror("site") as mirror:
        mirror.create()
        mirror.apply([write("a", b"1"), write("b", b"2")])
    (tmp_path / "site" / "b").unlink()
    exec(compile(BLOCKS[2], "README.md", "exec"), {})  # The README's own code.
    status, managed, verified = capsys.readouterr().out.splitlines()
    assert "files=2" in status
    assert (managed, verified) == ("['a', 'b']", "['b']")


def test_the_shelf_passes_and_writing_in_place_fails_in_just_the_words_that_are_shown() -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[3], "README.md", "exec"), names)  # The README's own code.
    names["test_shelf"]()
    testing.check_target(names["Shelf"], settings=testing.PROFILES["dev"], atomic=True)
    beside = re.search(
        r"^ +\(self.at / f.*?\.replace\(self.at / name\)\n", BLOCKS[3], re.MULTILINE | re.DOTALL
    )
    assert beside is not None
    in_place = " " * 16 + "(self.at / name).write_bytes(content)\n"
    exec(compile(BLOCKS[3].replace(beside[0], in_place), "README.md", "exec"), names)
    told = re.findall(r"^```text\n(.*?)\n```", README, re.DOTALL | re.MULTILINE)[0]
    with pytest.raises(testing.ContractViolation) as caught:
        testing.check_target(names["Shelf"], settings=testing.PROFILES["ci"])
    assert caught.value.rule is testing.Rule.CONVERGES
    with pytest.raises(testing.ContractViolation) as caught:
        exec(told.partition("To run it again:\n")[2], names)
    assert str(caught.value) == told


def test_every_rule_of_the_kit_is_in_its_table() -> None:
    table = _section("Fuzz your own connector").partition("| rule |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([a-z ]+)[(|]", table, re.MULTILINE)
    assert [row.strip() for row in rows] == [rule.title for rule in testing.Rule]


def test_no_block_of_code_is_left_untried() -> None:
    assert len(BLOCKS) == 4


def test_every_guarantee_names_tests_that_exist() -> None:
    rows = [line for line in _section("Guarantees").splitlines() if line.startswith("| ")]
    numbered = [row for row in rows if re.match(r"\| \d+ ", row)]
    assert len(numbered) == 12
    for row in numbered:
        named = re.findall(
            r"`([a-z_0-9/]+)(?:::([a-z_0-9]+))?`", row.rpartition("|")[0].rpartition("|")[2]
        )
        assert named, row
        for path, function in named:
            file = TOP / "tests" / f"{path}.py"
            assert file.is_file(), f"{file} does not exist"
            assert f"def {function or 'test_'}" in file.read_text(encoding="utf-8"), (
                path,
                function,
            )


def test_the_options_and_their_values_are_all_there() -> None:
    table = _section("Options")
    offered = _specs.RootOptions.__optional_keys__
    for option in ("durability", "verify", "on_conflict"):
        assert option in offered
        values = get_args(getattr(_specs, option.title().replace("_", "")))
        row = next(line for line in table.splitlines() if line.startswith(f"| `{option}`"))
        assert re.findall(r'`"([a-z]+)"`', row.split("|")[2]) == list(values)
