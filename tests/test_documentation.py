"""The pages under ``docs/``: what their Python does, and that the site has all of them."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnm_rl.agents import RecurrentPPO
from mnm_rl.cores import core_names
from mnm_rl.envs.registration import VELOCITIES, id_without_velocities
from mnm_rl.tasks import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guide").glob("*.md"))


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


def test_there_are_snippets():
    assert sum(len(snippets(page)) for page in GUIDES) >= 2


@pytest.mark.parametrize("page", [each for each in GUIDES if snippets(each)], ids=lambda page: page.stem)
def test_the_snippets_of_a_guide_run_one_after_the_other(page, tmp_path):
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", "\n".join(snippets(page))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_defaults_that_are_told_are_those_of_the_agent():
    page = (DOCS / "guide" / "from-recurrentppo.md").read_text()
    table = page[page.index("## Arguments") : page.index("`policy_kwargs`:")]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    told = [found for row in rows for found in re.findall(r"`(\w+)=([^`]+)`", row[2])]
    known = inspect.signature(RecurrentPPO.__init__).parameters
    assert {name: ast.literal_eval(value) for name, value in told} == {
        name: known[name].default for name, _ in told
    }
    assert len(told) >= 6
    same = re.findall(r"`(\w+)`", next(row[1] for row in rows if "`gae_lambda`" in row[1]))
    theirs = pytest.importorskip("sb3_contrib").RecurrentPPO
    for name in same:
        assert known[name].default == inspect.signature(theirs.__init__).parameters[name].default, name


def test_every_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(), re.M))
    pages = {
        str(page.relative_to(DOCS).with_suffix(""))
        for page in DOCS.rglob("*.md")
        if "_build" not in page.parts
    }
    assert pages - {"index"} == listed


def test_every_core_task_and_kind_of_environment_is_told_of():
    def missing(names, page: str) -> list[str]:
        text = (DOCS / "guide" / page).read_text()
        return [name for name in names if f"`{name}`" not in text]

    assert missing(core_names(), "cores.md") == []
    assert missing(TASKS, "tasks.md") == []
    assert missing(map(id_without_velocities, VELOCITIES), "environments.md") == []
