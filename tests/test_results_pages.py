"""Every run under results/ has a page, which names the run in the commands that made and that print it."""

import importlib
import shlex
import sys
from pathlib import Path

import pytest

from mnm_rl.commands.save_pretrained import made_by
from mnm_rl.reproduction.experiments import make_experiment
from mnm_rl.reproduction.programs import programs
from mnm_rl.reproduction.rl.experiment import make_comparison
from mnm_rl.reproduction.trials import Job, has_run, is_trained
from mnm_rl.training.folder import MODEL_FOLDER, read_run

ROOT = Path(__file__).parent.parent
CONFIGS = (path for path in (ROOT / "results").rglob("config.json") if path.parent.name != MODEL_FOLDER)
ALL_RUNS = sorted(path.parent.relative_to(ROOT) for path in CONFIGS)
EXPERIMENTS = {
    Path("results/rl/rl-laptop"): lambda: make_comparison("laptop", 5),
    Path("results/figure2/figure2-laptop"): lambda: make_experiment("figure2", "laptop", 5),
}
"""Folders with the runs of one command, which have one page for all of them."""
RUNS = [run for run in ALL_RUNS if run.parent not in EXPERIMENTS]


def test_there_are_runs():
    assert len(RUNS) > 50


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_run_has_a_page(run):
    page = (ROOT / run / "README.md").read_text()
    made_by, reached = page.index("## Made by"), page.index("## Reached")
    limits = page.index("## What it does not show")
    assert f"--log-dir {run}\n" in page[made_by:reached]
    assert str(run) in page[reached:limits]
    assert len(page[limits:].splitlines()) > 2


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_the_first_command_of_a_page_is_the_run_but_for_later_changes(run, monkeypatch):
    document = read_run(ROOT / run)
    made_by = (ROOT / run / "README.md").read_text().split("## Made by")[1].split("```")[1]
    command = shlex.split(made_by.strip().splitlines()[0], comments=True)
    if command[1].startswith("benchmarks/"):
        return
    program = next(each for each in programs().values() if each.kind.name == document["kind"])
    changed = {name.rpartition(".")[2] for change in document.get("changes", []) for name in change}
    monkeypatch.setattr(sys, "argv", command[1:])
    parsed = importlib.import_module(f"mnm_rl.commands.{Path(command[1]).stem}")._parse().run
    module = importlib.import_module(type(parsed).__module__)
    found, wanted = program.complete(module.config_to_dict(parsed)), program.complete(document["config"])
    differing = {name.rpartition(".")[2] for name in wanted if found[name] != wanted[name]}
    former = {"repeat": "babi_repeat", "rename": "babi_rename", "supplement": "babi_supplement"}
    assert {name for name in differing if not {name, former.get(name)} & changed} <= {"checkpoint_minutes"}


@pytest.mark.parametrize("card", sorted((ROOT / "results").rglob("model/README.md")), ids=str)
def test_the_card_of_a_run_has_the_commands_of_its_page(card):
    text = card.read_text()
    assert f"# {card.parents[1].name}\n" in text
    assert f"```\n{made_by(card.parents[1])}\n```" in text


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=str)
def test_the_runs_of_an_experiment_are_whole_and_what_its_command_would_make(folder):
    if "rl" in folder.parts:
        pytest.importorskip("popgym")
    page = (ROOT / folder / "README.md").read_text()
    assert page.index("## Made by") < page.index("## Reached") < page.index("## What it does not show")
    assert f"--out {folder.parent}" in page
    trials = {trial.name: trial for trial in EXPERIMENTS[folder]().trials}
    runs = [run for run in ALL_RUNS if run.parent == folder]
    assert runs
    for run in runs:
        trial = trials[run.name]
        job = Job(trial, programs()[trial.program], ROOT / folder)
        assert has_run(job)
        assert is_trained(job)
