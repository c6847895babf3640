"""Checkpoints that are damaged, strange or made to do harm: each is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mnm_rl.training.folder import SUPERVISED, create_run, load_state, save_state
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict, config_to_dict
from mnm_rl.training.supervised.evaluation import evaluate_run, load_run
from mnm_rl.training.supervised.trainer import SupervisedTrainer

SMALL = SupervisedConfig(
    task_options={"instance": 1},
    core="lstm",
    core_settings={"hidden_size": 8},
    embedding_size=6,
    batch_size=4,
    iterations=3,
    validate_every=2,
)


@pytest.fixture(autouse=True)
def _few_held_out_episodes(monkeypatch):
    monkeypatch.setattr("mnm_rl.tasks.generated.GeneratedTask.held_out_episodes", 20)


@pytest.fixture
def run(tmp_path) -> Path:
    create_run(tmp_path / "run", SUPERVISED, config_to_dict(SMALL))
    SupervisedTrainer(SMALL, SMALL.make_task(), tmp_path / "run").train()
    return tmp_path / "run"


def resume(run: Path, config: SupervisedConfig = SMALL) -> SupervisedTrainer:
    trainer = SupervisedTrainer(config, config.make_task(), None)
    trainer.load(run)
    return trainer


def refused(act: Callable[[], object], *parts: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message
    return message


def plain_state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def where_tensors_are(path: Path) -> list[tuple[int, int]]:
    """Places of the stored numbers in the file."""
    with zipfile.ZipFile(path) as archive:
        places = []
        for member in archive.infolist():
            if "/data/" in member.filename:
                with archive.open(member):
                    header = member.header_offset
                start = path.read_bytes()[header + 26 : header + 30]
                skipped = int.from_bytes(start[:2], "little") + int.from_bytes(start[2:], "little")
                places.append((header + 30 + skipped, member.file_size))
        return places


@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_bit_in_the_numbers_is_noticed(run, seed):
    best, chance = run / "best.pt", random.Random(seed)
    start, size = chance.choice(where_tensors_are(best))
    data = bytearray(best.read_bytes())
    data[start + chance.randrange(size)] ^= 1 << chance.randrange(8)
    best.write_bytes(data)
    refused(lambda: evaluate_run(run), str(best), "incomplete or damaged: the checksum of")


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(run):
    best, chance = run / "best.pt", random.Random(0)
    whole, before = best.read_bytes(), plain_state(best)
    for _ in range(150):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        best.write_bytes(data)
        with contextlib.suppress(ValueError):
            state = load_state(best)
            assert state["config"] == before["config"]
            assert all(torch.equal(value, state["model"][name]) for name, value in before["model"].items())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite_are_refused(run, number):
    for name, act in (("best.pt", lambda: evaluate_run(run)), ("checkpoint.pt", lambda: resume(run))):
        state = plain_state(run / name)
        state["model"]["head.bias"][1] = number
        save_state(run / name, state)
        refused(act, str(run / name), "its head.bias is not finite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list"),
        (torch.zeros(3), "it holds a Tensor"),
        ({}, "it lacks config, model; it has nothing"),
        ({"model": {}}, "it lacks config; it has model"),
        ({"config": {}, "model": [1]}, "it lacks model; it has config, model"),
        ({"config": {}, "model": {}}, "was made with core None, and"),
    ],
)
def test_what_is_no_checkpoint_is_named(run, content, message):
    save_state(run / "best.pt", content)
    refused(lambda: evaluate_run(run), str(run / "best.pt"), message)


def test_parameters_alone_do_not_do_for_going_on(run):
    os.replace(run / "best.pt", run / "checkpoint.pt")
    refused(lambda: resume(run), "checkpoint.pt", "it lacks optimizer, guard, progress, window")


def test_other_shapes_are_refused(run):
    state = plain_state(run / "best.pt")
    for change in (
        {"head.bias": torch.zeros(3)},
        {"head.bias": 5},
        {"unknown": torch.zeros(1)},
        # Four bytes that claim to be as many numbers as the universe has atoms.
        {"head.bias": torch.zeros(1).expand(10**15)},
    ):
        save_state(run / "best.pt", {**state, "model": {**state["model"], **change}})
        refused(lambda: load_run(run), str(run / "best.pt"), "does not fit the settings of the run: ")
    del state["model"]["head.bias"]
    save_state(run / "best.pt", state)
    refused(lambda: load_run(run), "does not fit the settings of the run: it lacks head.bias")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("progress", lambda progress: {**progress, "moon": 1}),
        ("progress", lambda progress: {}),
        ("window", lambda window: {"errors": {}, "losses": [], "tides": 3}),
        ("guard", lambda guard: {}),
        ("optimizer", lambda optimizer: {"state": {}, "param_groups": []}),
        ("optimizer", lambda optimizer: {}),
        ("optimizer", lambda optimizer: spoiled(optimizer, torch.zeros(2))),
        ("optimizer", lambda optimizer: spoiled(optimizer, float("nan"))),
        ("optimizer", lambda optimizer: spoiled(optimizer, 3)),
    ],
)
def test_a_part_that_does_not_fit_is_refused_when_a_run_goes_on(run, part, change):
    path = run / "checkpoint.pt"
    state = plain_state(path)
    save_state(path, {**state, part: change(state[part])})
    refused(lambda: resume(run), str(path))


def spoiled(optimizer: dict[str, Any], value: Any) -> dict[str, Any]:
    moments = optimizer["state"][0]
    if isinstance(value, float):
        value = torch.full_like(moments["exp_avg"], value)
    return {**optimizer, "state": {**optimizer["state"], 0: {**moments, "exp_avg": value}}}


class Attack:
    """Runs a command where it is unpickled without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(run, tmp_path, zipped):
    state = {**plain_state(run / "best.pt"), "task": Attack(f"touch {tmp_path}/proof")}
    if zipped:
        torch.save(state, run / "best.pt")
    else:
        (run / "best.pt").write_bytes(pickle.dumps(state))
    message = refused(lambda: load_run(run), str(run / "best.pt"))
    if zipped:
        assert "system, neither a tensor nor a plain value" in message
    assert not (tmp_path / "proof").exists()


def test_a_file_that_claims_to_hold_much_is_refused(run):
    best = run / "best.pt"
    with zipfile.ZipFile(best) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    largest = max(members, key=lambda name: len(members[name]))
    with zipfile.ZipFile(best, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, b"\0" * 10**8 if name == largest else data)
    assert best.stat().st_size < 10**6
    refused(lambda: load_run(run), str(best), "compressed, which checkpoints are not")


def test_what_is_no_file_is_refused(run):
    (run / "best.pt").unlink()
    (run / "best.pt").mkdir()
    refused(lambda: load_run(run), "Cannot read the checkpoint", "Is a directory")


def test_a_run_of_other_sizes_is_refused_when_it_goes_on(run):
    refused(
        lambda: resume(run, replace(SMALL, embedding_size=7)),
        f"was made with embedding_size {SMALL.embedding_size}, and {run / 'config.json'} says 7",
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("core_settings", {"attention_scale": 0.9}, "attention_scale None, and {} says 0.9"),
        ("core_settings", {"layer_norm": True}, "layer_norm False, and {} says True"),
        ("task_options", {"instance": 2}, "instance 1, and {} says 2"),
        ("seed", 5, "seed 0, and {} says 5"),
        ("meta_weight", 0.5, "meta_weight 1.0, and {} says 0.5"),
    ],
)
def test_settings_that_fit_the_same_parameters_are_those_of_the_checkpoint(name, value, says, tmp_path):
    """Both files are named, whoever reads them; a hand may have changed one, or moved it."""
    made = replace(SMALL, core="lstm-salu", core_settings={"hidden_size": 5, "key_size": 4, "value_size": 4})
    create_run(tmp_path / "run", SUPERVISED, config_to_dict(made))
    SupervisedTrainer(made, made.make_task(), tmp_path / "run").train()
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    other = {**document["config"][name], **value} if isinstance(value, dict) else value
    document["config"][name] = other
    path.write_text(json.dumps(document))
    for file, act in (
        ("best.pt", lambda: load_run(path.parent)),
        ("checkpoint.pt", lambda: load_run(path.parent / "checkpoint.pt")),
        ("checkpoint.pt", lambda: resume(path.parent, config_from_dict(document["config"]))),
    ):
        refused(act, f"The checkpoint {path.parent / file} was made with {says.format(path)}")


def test_a_run_may_be_given_new_lengths_and_rates_before_there_is_a_checkpoint_of_them(run):
    longer = replace(SMALL, iterations=SMALL.iterations + 1, learning_rate=1e-4, schedule="linear")
    create = config_to_dict(longer)
    document = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**document, "config": create}))
    assert load_run(run)[0] == config_from_dict(create)
    resume(run, longer)


def test_a_checkpoint_does_not_have_a_module_imported(run, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    state = plain_state(run / "best.pt")
    save_state(run / "best.pt", {**state, "config": {**state["config"], "core": "mine:Core"}})
    refused(lambda: load_run(run, trusted=True), "was made with core mine:Core, and")


@pytest.mark.parametrize("iteration", [-1, 4, 1.5, "x", True])
def test_an_iteration_that_cannot_be_is_refused(run, iteration):
    state = plain_state(run / "checkpoint.pt")
    state["progress"]["iteration"] = iteration
    save_state(run / "checkpoint.pt", state)
    refused(lambda: resume(run), "checkpoint.pt", "iteration")
