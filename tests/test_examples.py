"""The scripts under ``examples/`` run as they are and print that something was learned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def printed_by(name: str, folder: Path) -> str:
    """What an example prints, run in a process of its own and from another folder."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_loop_learns_what_only_the_carried_state_can_answer(tmp_path):
    errors = re.findall(r"([\d.]+)% of all .*?([\d.]+)% of those", printed_by("own_loop.py", tmp_path))
    first, last = [float(number) for number in errors[0]], [float(number) for number in errors[-1]]
    assert min(first) > 30
    assert max(last) < 5


def test_own_environment_learns_to_remember_the_colour(tmp_path):
    printed = printed_by("own_environment.py", tmp_path)
    before, after = (float(number) for number in re.findall(r": ([\d.]+) of 1", printed))
    assert before < 0.4
    assert after > 0.9


def test_own_core_keeps_the_promises_and_learns(tmp_path):
    before, after = (
        float(number) for number in re.findall(r": ([\d.]+)%", printed_by("own_core.py", tmp_path))
    )
    assert before > 60
    assert after < 10


def test_own_write_rule_is_run_and_learns(tmp_path):
    printed = printed_by("own_write_rule.py", tmp_path)
    assert "The torch kernel cannot run this core, because its method write is overridden" in printed
    before, after = (float(number) for number in re.findall(r": ([\d.]+)%", printed))
    assert before > 60
    assert after < 10


def test_own_task_is_learned(tmp_path):
    before, after = (
        float(number) for number in re.findall(r": ([\d.]+)%", printed_by("own_task.py", tmp_path))
    )
    assert before > 60
    assert after < 10


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_tested(path):
    assert len(path.read_text().splitlines()) < 80
    assert f'"{path.name}"' in Path(__file__).read_text()
