"""Runs that are killed and go on are those that nobody killed; and ``kill_trials.py`` would notice if not."""

import dataclasses
import functools
import shutil
import signal
import sys
from pathlib import Path

import kill_trials
import numpy as np
import pytest
import torch
from kill_points import WriteKill
from kill_trials import Attempts, Laboratory, Trial, broken_promises, differences, leaves, run_trials

from mnm_rl.training.folder import load_state

MAZE, CARTPOLE, PPO, _, COPY = kill_trials.RUNS


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Laboratory(tmp_path_factory.mktemp("trials"), seed=0, most_kills=2)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("run", [MAZE, PPO, COPY])
def test_killed_runs_end_as_if_nothing_had_happened(run, laboratory, capsys):
    kills = ("start", "checkpoint write", "curve write")
    first = 10 if run == COPY else 0
    tallies = run_trials(laboratory, [Trial(first + number, run, kill) for number, kill in enumerate(kills)])
    assert sum(tally.failures for tally in tallies.values()) == 0, capsys.readouterr().err
    assert sum(tally.killed for tally in tallies.values()) >= 2
    assert sum(tally.resumed for tally in tallies.values()) >= 2


@pytest.mark.parametrize("run", [CARTPOLE, COPY])
def test_a_run_killed_between_its_config_and_its_first_checkpoint_begins_anew(run, laboratory, tmp_path):
    attempts = Attempts(kill_trials.RUNS[run], tmp_path / "run")
    attempts.attempt(WriteKill(signal.SIGKILL, "checkpoint", count=1, share=0.5))
    assert (attempts.kills, attempts.resumed) == (1, 0)
    assert "checkpoint" not in "".join(path.name for path in attempts.folder.glob("[!.]*"))
    attempts.attempt()
    assert attempts.resumed == 1
    assert not attempts.failures
    unbroken = laboratory.reference(run).folder
    assert differences(kill_trials.RUNS[run], unbroken, attempts.folder) == []


def flip_a_bit(path: Path) -> None:
    """In a parameter of a supervised run's checkpoint."""
    state = load_state(path)
    parameter = next(iter(state["model"].values()))
    parameter.view(-1).view(torch.int32)[0] += 1
    torch.save(state, path)


def test_a_resumed_run_that_was_tampered_with_is_a_failure(laboratory, monkeypatch, tmp_path, capsys):
    def tamper(folder: Path) -> None:
        if (folder / "checkpoint.pt").exists():
            flip_a_bit(folder / "checkpoint.pt")

    tampering = functools.partial(dataclasses.replace, laboratory, between=tamper)
    monkeypatch.setattr(kill_trials, "Laboratory", lambda folder, seed: tampering(folder=folder, seed=seed))
    monkeypatch.setattr(kill_trials.tempfile, "tempdir", str(tmp_path))
    options = ["--only", "0", "--runs", COPY, "--kills", "curve write"]
    monkeypatch.setattr(sys, "argv", ["kill_trials.py", *options])
    assert kill_trials.main() == 1
    out, err = capsys.readouterr()
    assert f"| {COPY} | curve write | 1 |" in out
    assert out.splitlines()[-1].endswith("| 0 | 1 |")
    assert "  checkpoint.pt.model." in err
    assert len(list(tmp_path.glob("kill-trials-*/trial-0"))) == 1


def drop_a_row(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))


def repeat_a_row(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[1:]]))


def change_the_seed(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize(
    ("file", "tamper"),
    [
        ("checkpoint.pt", flip_a_bit),
        ("checkpoint.pt", lambda path: path.write_bytes(path.read_bytes()[:-50])),
        ("best.pt", flip_a_bit),
        ("best.pt", Path.unlink),
        ("train.csv", drop_a_row),
        ("valid.csv", repeat_a_row),
        ("config.json", change_the_seed),
        (".lock", Path.touch),
        (".best.pt.7.partial.pt", Path.touch),
    ],
)
def test_what_differs_is_named(file, tamper, laboratory, tmp_path):
    unbroken = laboratory.reference(COPY).folder
    folder = shutil.copytree(unbroken, tmp_path / "run")
    assert differences(kill_trials.RUNS[COPY], unbroken, folder) == []
    tamper(folder / file)
    found = differences(kill_trials.RUNS[COPY], unbroken, folder)
    assert found
    assert all(file.removesuffix(".json") in difference for difference in found)


@pytest.mark.parametrize("tamper", [drop_a_row, repeat_a_row])
def test_broken_promises_are_named(tamper, laboratory, tmp_path):
    unbroken = laboratory.reference(CARTPOLE).folder
    folder = shutil.copytree(unbroken, tmp_path / "run")
    assert broken_promises(unbroken, folder) == []
    tamper(folder / "progress.csv")
    assert "progress.csv" in broken_promises(unbroken, folder)[0]


def test_an_agent_is_compared_down_to_its_generators(laboratory):
    state = kill_trials._agent_state(laboratory.reference(MAZE).folder)
    names = leaves(state, "agent")
    for part in (
        "policy.",
        "optimizer.state.0.exp_avg",
        "run_state.random.torch",
        "run_state.env.",
        "callbacks",
    ):
        assert any(f"agent.{part}" in name for name in names), part
    before = leaves({"x": np.array([0.0]), "seconds": 1.0}, "")
    assert before == leaves({"x": np.array([0.0]), "seconds": 2.0}, "")
    assert before != leaves({"x": np.array([-0.0]), "seconds": 1.0}, ""), "every bit counts"


def test_all_pairs_of_runs_and_kills_have_their_turn():
    trials = [kill_trials.make_trial(number, list(kill_trials.RUNS)) for number in range(100)]
    pairs = {(trial.run, trial.kill) for trial in trials}
    assert {(run, kill) for run in kill_trials.RUNS for kill in kill_trials.KILLS} <= pairs
    assert sum(trial.kill == kill_trials.COLD for trial in trials) == 5
    assert sum(trial.kill == kill_trials.BUILD for trial in trials) == 3
