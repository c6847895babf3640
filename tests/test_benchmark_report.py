"""One page of all figures of speed of a machine."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

ROOT = Path(__file__).parent.parent


def loaded(name: str) -> Any:
    """A program of the folder benchmarks, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report(monkeypatch, tmp_path):
    module = loaded("report")
    for name, text in {
        "first.py": "import sys, os; print('| a | 1 |', sys.argv[1:], os.environ['OMP_NUM_THREADS'])",
        "second.py": "print('begun'); raise SystemExit('skrl is not installed')",
        "third.py": "import time; time.sleep(60)",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(
        module,
        "PARTS",
        {
            "one": module.Part("What is first", ("first.py --rounds 3", "first.py")),
            "two": module.Part("What is second", ("second.py",)),
            "three": module.Part("What is third", ("third.py",)),
        },
    )
    return module


def test_the_page_has_what_was_printed_and_what_was_not_measured(report, tmp_path):
    report.main(report.Args(tmp_path / "out", ("one", "two")))
    (page,) = (tmp_path / "out").iterdir()
    text = page.read_text()
    assert "`OMP_NUM_THREADS=1 python benchmarks/first.py --rounds 3`, load before it " in text
    assert "| a | 1 | ['--rounds', '3'] 1\n" in text
    assert "| a | 1 | [] 1\n" in text
    assert "begun\nNot measured: it ended with status 1: skrl is not installed\n" in text
    assert "third" not in text


def test_parts_are_measured_again_one_by_one_and_keep_their_order(report, tmp_path):
    report.main(report.Args(tmp_path / "out", ("two",)))
    (page,) = (tmp_path / "out").iterdir()
    before = report.read_sections(page)
    (tmp_path / "second.py").write_text("print('something else')")
    report.main(report.Args(tmp_path / "out", ("three", "one"), minutes=0.005))
    sections = report.read_sections(page)
    assert list(sections) == ["What is first", "What is second", "What is third"]
    assert sections["What is second"] == before["What is second"]
    assert "Not measured: it took more than 0.005 minutes." in sections["What is third"]


def test_an_unknown_part_is_refused_before_anything_is_measured(report, tmp_path):
    with pytest.raises(ValueError, match="There is no part four; there are one, two, three"):
        report.main(report.Args(tmp_path / "out", ("one", "four")))
    assert not (tmp_path / "out").exists()


def commands() -> list[str]:
    report = loaded("report")
    return [command for part in report.PARTS.values() for command in part.commands]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_page_is_one_that_its_program_takes(command, monkeypatch):
    program, *words = command.split()
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = loaded(Path(program).stem)
    if program == "training_shares.py":
        name, *options = words
        assert name in module.COMMANDS
        monkeypatch.setattr(sys, "argv", [name, *options])
        importlib.import_module(f"mnm_rl.commands.{name.replace('-', '_')}")._parse()
    else:
        tyro.cli(module.Args, args=words)
