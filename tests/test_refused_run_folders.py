"""Damaged run folders: one clear sentence each, before any work starts (see refusals.py).

CI takes every tenth case of each test (see conftest.py); `pytest -m "" tests/test_refused_run_folders.py` runs all of them.
"""

# ruff: noqa: E501, F811
# pyright: reportArgumentType=false

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import fault_of_command, files, filled, imported, place, refuse, refuse_call, run_command, runs  # noqa: F401 - fixtures

from mnm_rl.training.rl.config import A2CConfig
from mnm_rl.training.rl.config import config_from_dict as a2c_from_dict
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.config import config_from_dict as supervised_from_dict

READERS = {
    "a2c": (
        ("evaluate", "a2c --episodes 2"),
        ("train_a2c", "--resume a2c --timesteps 64"),
        ("analyze", "a2c --episodes 2 --out o"),
    ),
    "mnm": (
        ("evaluate", "mnm"),
        ("train_supervised", "--resume mnm --iterations 4"),
        ("analyze", "mnm --out o"),
    ),
}
TEXTS = {
    "empty": "",
    "null": "null",
    "number": "5",
    "list": "[]",
    "object": "{}",
    "no config": '{"kind": "a2c"}',
    "no kind": '{"config": {}}',
    "kind is a number": '{"kind": 5, "config": {}}',
    "kind is a list": '{"kind": [], "config": {}}',
    "unknown kind": '{"kind": "x", "config": {}}',
    "measurement": '{"kind": "measurement", "config": {}}',
    "config is a list": '{"kind": "a2c", "config": []}',
    "config is null": '{"kind": "supervised", "config": null}',
    "NaN": "NaN",
    "half": '{"kind": "a2c", "config": {"env": ',
    "deep": "[" * 100_000,
    "a huge number": '{"kind": "a2c", "config": {"seed": ' + "9" * 5000 + "}}",
    "BOM": '\ufeff{"kind": "a2c", "config": {}}',
    "lone surrogate": '{"kind": "\\ud800", "config": {}}',
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("run", READERS)
def test_a_config_file_that_is_none_is_refused(run: str, text: str, place: Path) -> None:
    (place / run / "config.json").write_text(TEXTS[text])
    for command, words in READERS[run]:
        refuse(command, [*filled(words)], place, "config|kind|run")


@pytest.mark.parametrize("run", READERS)
def test_a_config_file_of_bytes_is_refused(run: str, place: Path) -> None:
    for content in (b"\xff\xfe\x00", b"\x00" * 100):
        (place / run / "config.json").write_bytes(content)
        for command, words in READERS[run]:
            refuse(command, filled(words), place, "config")


@pytest.mark.parametrize("run", READERS)
def test_a_config_file_that_is_a_folder_is_refused(run: str, place: Path) -> None:
    (place / run / "config.json").unlink()
    (place / run / "config.json").mkdir()
    for command, words in READERS[run]:
        refuse(command, filled(words), place, "config|run")


BY_KIND: dict[type, tuple[object, ...]] = {
    int: ("x", 1.5, float("nan"), [], True, 10**30, None),
    float: ("x", float("nan"), [], None),
    str: (5, [], None),
    bool: ("x", None),
    dict: ("x", [], None, {"nonsense": 1}),
}
RUN_CONFIGS: dict[str, type] = {"a2c": A2CConfig, "mnm": SupervisedConfig}


def wrong_values(config: type) -> Iterator[tuple[str, object]]:
    """Every field of a config with values that it cannot have."""
    for each in dataclasses.fields(config):
        hint = str(each.type)
        optional = "None" in hint
        kinds = [kind for kind in (bool, float, int) if re.search(rf"\b{kind.__name__}\b", hint)]
        kind = dict if "Mapping" in hint else kinds[0] if kinds else str
        for value in BY_KIND[kind]:
            is_allowed = (value is None and optional) or (value == [] and "tuple" in hint)
            if not is_allowed:
                yield each.name, value


WRONG = [(run, *wrong) for run, config in RUN_CONFIGS.items() for wrong in wrong_values(config)]


def write_config(folder: Path, **changes: object) -> None:
    """Change a run's config."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["config"] |= changes
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(("run", "name", "value"), WRONG)
def test_a_wrong_value_in_a_config_is_refused_by_the_library(
    run: str, name: str, value: Any, place: Path
) -> None:
    saved = json.loads((place / run / "config.json").read_text())["config"]
    read: Callable[[Any], Any] = a2c_from_dict if run == "a2c" else supervised_from_dict
    refuse_call(lambda: read({**saved, name: value}), place, f"{name}|core|task|nonsense")


@pytest.mark.parametrize(
    ("run", "name", "value"),
    [
        *(
            ("a2c", name, value)
            for name in ("env", "env_kwargs", "drop_observations", "core")
            for value in (5, None)
        ),
        *(("a2c", name, "x") for name in ("core_settings", "subprocesses", "seed", "reward_scale")),
        *(("mnm", name, value) for name in ("task", "core", "task_options") for value in (5, None)),
        *(("mnm", name, "x") for name in ("core_settings", "seed", "batch_size")),
    ],
)
def test_a_wrong_value_in_a_config_is_refused_by_evaluate(
    run: str, name: str, value: Any, place: Path
) -> None:
    write_config(place / run, **{name: value})
    refuse("evaluate", filled(READERS[run][0][1]), place, f"{name}|core|task")


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("a2c", {"nonsense": 1}),
        ("a2c", {"core_settings": {"hidden_size": "x"}}),
        ("a2c", {"core_settings": {"hidden_size": 1.5}}),
        ("a2c", {"core_settings": {"hidden_size": None}}),
        ("a2c", {"core_settings": {"hidden_size": 10**9}}),
        ("a2c", {"core_settings": {"hidden_size": 5}}),
        ("a2c", {"core": "gru"}),
        ("a2c", {"core": "mnm-p", "core_settings": {}}),
        ("a2c", {"env": "CartPole-v1"}),
        ("a2c", {"env": "MNMMaze-5x5", "previous_action": False}),
        ("a2c", {"env": "os:x"}),
        ("a2c", {"core": "os:x"}),
        ("a2c", {"core": "mnm_rl.cores:MemoryCore"}),
        ("a2c", {"core": "mnm_rl.nowhere:X"}),
        ("a2c", {"core": "mnm_rl.__main__:X"}),
        (
            "a2c",
            {"env": "mnm_rl.__main__:X-v0", "previous_action": None, "episodes": None, "watch_every": None},
        ),
        ("mnm", {"nonsense": 1}),
        ("mnm", {"task_options": {"instance": 7}}),
        ("mnm", {"task_options": {"instance": "x"}}),
        ("mnm", {"task_options": {"instance": [1]}}),
        ("mnm", {"task_options": {"support_size": "x", "length": 1}}),
        ("mnm", {"task_options": {"support_size": 1.5, "length": 1}}),
        ("mnm", {"task_options": {"smaller_instances": "x"}}),
        ("mnm", {"task": "double-copy"}),
        ("mnm", {"task": "double-copy", "task_options": {}}),
        ("mnm", {"task": "os:x"}),
        ("mnm", {"task": "mnm_rl.__main__:X"}),
        ("mnm", {"core": "lstm", "core_settings": {}}),
        ("mnm", {"embedding_size": 5}),
        ("mnm", {"embedding_size": 10**12}),
        ("mnm", {"core_settings": {"memory_widths": 5}}),
        ("mnm", {"core_settings": {"memory_widths": "x"}}),
        ("mnm", {"core_settings": {"memory_widths": [1.5]}}),
        ("mnm", {"core_settings": {"recall_weights": ["x"]}}),
        ("mnm", {"core_settings": {"recall_weights": None}}),
        ("mnm", {"core_settings": {"heads": True}}),
        ("mnm", {"core_settings": {"kernel": ["x"]}}),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(run: str, changes: dict[str, Any], place: Path) -> None:
    write_config(place / run, **changes)
    faults = []
    for command, words in READERS[run]:
        before = files(place)
        outcome = run_command(command, filled(words), place)
        says = "|".join(
            [*changes, *map(str, changes.get("core_settings", {})), *changes.get("task_options", {})]
        )
        fault = fault_of_command(outcome, says + "|checkpoint|module|observation|maze", before, files(place))
        faults += [f"{command}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


def truncate(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, part: float) -> None:
    """Flip a bit in the data of one of an archive's files, so far into the list of them."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.file_size]
        member = members[int(part * len(members))]
        content = archive.read(member)
    whole = bytearray(path.read_bytes())
    place = whole.index(content, member.header_offset) + len(content) // 2
    whole[place] ^= 16
    path.write_bytes(whole)


def save(path: Path, value: object) -> None:
    """Something else in torch's format."""
    path.unlink()
    torch.save(value, path)


def change_state(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint with something changed."""
    state = torch.load(path, weights_only=False)
    change(state)
    torch.save(state, path)


def _fill(state: dict[str, Any], value: float) -> None:
    for tensor in state["model"].values():
        tensor.fill_(value)


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("pwned",))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": truncate,
    "text": lambda path: path.write_text("x"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "an empty archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "a number": lambda path: save(path, 5),
    "a list": lambda path: save(path, [1]),
    "an empty dictionary": lambda path: save(path, {}),
    "a tensor": lambda path: save(path, torch.zeros(3)),
    "code": lambda path: save(path, {"model": Evil()}),
    "code, a pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    **{f"a bit at {part}": functools.partial(flip, part=part) for part in (0.05, 0.2, 0.5, 0.8, 0.99)},
}
STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no model": lambda state: state.pop("model"),
    "no config": lambda state: state.pop("config"),
    "config is a list": lambda state: state.update(config=[]),
    "config is empty": lambda state: state.update(config={}),
    "model is empty": lambda state: state.update(model={}),
    "model is a list": lambda state: state.update(model=[]),
    "model of numbers": lambda state: state.update(model=dict.fromkeys(state["model"], 1)),
    "a tensor lacks": lambda state: state["model"].popitem(),
    "a tensor more": lambda state: state["model"].update(more=torch.zeros(1)),
    "other shapes": lambda state: state.update(model={k: torch.zeros(7, 7) for k in state["model"]}),
    "integers": lambda state: state.update(model={k: v.long() for k, v in state["model"].items()}),
    "complex": lambda state: state.update(model={k: v.cfloat() for k, v in state["model"].items()}),
    "on meta": lambda state: state.update(model={k: v.to("meta") for k, v in state["model"].items()}),
    "NaN": lambda state: _fill(state, float("nan")),
    "infinite": lambda state: _fill(state, float("inf")),
    "task is a number": lambda state: state.update(task=5),
}
PROGRESS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "optimizer is empty": lambda state: state.update(optimizer={}),
    "optimizer is a number": lambda state: state.update(optimizer=5),
    "optimizer of other shapes": lambda state: [
        entry.update(exp_avg=torch.zeros(7, 7)) for entry in state["optimizer"]["state"].values()
    ],
    "optimizer of another size": lambda state: state["optimizer"]["param_groups"][0].update(params=[0]),
    "no guard": lambda state: state.pop("guard"),
    "guard is empty": lambda state: state.update(guard={}),
    "guard is a number": lambda state: state.update(guard=5),
    "no progress": lambda state: state.pop("progress"),
    "progress is empty": lambda state: state.update(progress={}),
    "unknown progress": lambda state: state["progress"].update(nonsense=1),
    "iteration is text": lambda state: state["progress"].update(iteration="x"),
    "iteration is negative": lambda state: state["progress"].update(iteration=-5),
    "iteration is NaN": lambda state: state["progress"].update(iteration=float("nan")),
    "iteration is beyond": lambda state: state["progress"].update(iteration=10**9),
    "errors is a list": lambda state: state["progress"].update(errors=[1]),
    "no window": lambda state: state.pop("window"),
    "window is empty": lambda state: state.update(window={}),
    "losses are text": lambda state: state["window"].update(losses="x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_best_parameters_are_refused(damage: str, place: Path) -> None:
    if damage == "missing":
        (place / "mnm" / "checkpoint.pt").unlink()
    DAMAGES[damage](place / "mnm" / "best.pt")
    refuse("evaluate", ["mnm"], place, "best|checkpoint")
    refuse("analyze", ["mnm", "--out", "empty"], place, "best|checkpoint")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_damaged_supervised_checkpoint_is_refused(damage: str, trusted: bool, place: Path) -> None:
    DAMAGES[damage](place / "mnm" / "checkpoint.pt")
    words = ["--resume", "mnm", "--iterations", "4", "--quiet", *(["--trusted"] if trusted else [])]
    refuse("train_supervised", words, place, "checkpoint")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_damaged_agent_is_refused(damage: str, trusted: bool, place: Path) -> None:
    if trusted and damage.startswith("code"):
        pytest.skip("a trusted file may run code")
    DAMAGES[damage](place / "a2c" / "checkpoint.zip")
    more = ["--trusted"] if trusted else []
    refuse("evaluate", ["a2c", "--episodes", "2", *more], place, "checkpoint")
    refuse("train_a2c", ["--resume", "a2c", "--timesteps", "64", "--quiet", *more], place, "checkpoint")


@pytest.mark.parametrize("change", STATES)
def test_odd_best_parameters_are_refused(change: str, place: Path) -> None:
    change_state(place / "mnm" / "best.pt", STATES[change])
    refuse("evaluate", ["mnm"], place, "best|checkpoint")


@pytest.mark.parametrize("change", {**STATES, **PROGRESS})
def test_an_odd_supervised_checkpoint_is_refused(change: str, place: Path) -> None:
    change_state(place / "mnm" / "checkpoint.pt", {**STATES, **PROGRESS}[change])
    words = ["--resume", "mnm", "--iterations", "4", "--quiet", "--no-tensorboard"]
    refuse("train_supervised", words, place, "checkpoint")


def rewrite_archive(path: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """An agent's file with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _data(**changes: object) -> Callable[[dict[str, bytes]], object]:
    return lambda entries: entries.update(
        data=json.dumps({**json.loads(entries["data"]), **changes}).encode()
    )


def _tensors(change: Callable[[dict[str, Any]], object], entry: str = "policy.pth") -> Any:
    def apply(entries: dict[str, bytes]) -> None:
        state = torch.load(io.BytesIO(entries[entry]), weights_only=False)
        state = change(state) or state
        whole = io.BytesIO()
        torch.save(state, whole)
        entries[entry] = whole.getvalue()

    return apply


ARCHIVES: dict[str, Callable[[dict[str, bytes]], object]] = {
    "no data": lambda entries: entries.pop("data"),
    "data is empty": lambda entries: entries.update(data=b""),
    "data is null": lambda entries: entries.update(data=b"null"),
    "data is a list": lambda entries: entries.update(data=b"[]"),
    "data is no text": lambda entries: entries.update(data=b"\xff\xff"),
    "data is deep": lambda entries: entries.update(data=b"[" * 100_000),
    "no policy": lambda entries: entries.pop("policy.pth"),
    "policy is empty": lambda entries: entries.update({"policy.pth": b""}),
    "policy is code": lambda entries: entries.update({"policy.pth": pickle.dumps(Evil())}),
    "no optimizer": lambda entries: entries.pop("policy.optimizer.pth"),
    "optimizer is a number": _tensors(lambda state: [5], "policy.optimizer.pth"),
    "optimizer is empty": _tensors(lambda state: {"state": {}, "param_groups": []}, "policy.optimizer.pth"),
    "policy is a list": _tensors(lambda state: [5]),
    "policy of other shapes": _tensors(lambda state: {key: torch.zeros(7, 7) for key in state}),
    "policy lacks a tensor": _tensors(lambda state: dict(list(state.items())[1:])),
    "policy of NaN": _tensors(lambda state: {key: value * float("nan") for key, value in state.items()}),
    "n_steps is text": _data(n_steps="x"),
    "n_steps is 0": _data(n_steps=0),
    "n_steps is huge": _data(n_steps=10**12),
    "n_envs is text": _data(n_envs="x"),
    "n_envs is 7": _data(n_envs=7),
    "gamma is NaN": _data(gamma=float("nan")),
    "gamma is text": _data(gamma="x"),
    "gamma is null": _data(gamma=None),
    "max_grad_norm is text": _data(max_grad_norm="x"),
    "num_timesteps is text": _data(num_timesteps="x"),
    "num_timesteps is negative": _data(num_timesteps=-(10**9)),
    "_n_updates is text": _data(_n_updates="x"),
    "_n_updates is null": _data(_n_updates=None),
    "seed is text": _data(seed="x"),
    "entropy_kind is odd": _data(entropy_kind="x"),
    "verbose is text": _data(verbose="x"),
    "policy_kwargs is text": _data(policy_kwargs="x"),
    "policy_kwargs is a list": _data(policy_kwargs=[]),
    "policy_kwargs of another core": _data(policy_kwargs={"core": "gru"}),
    "policy_kwargs of a huge core": _data(
        policy_kwargs={"core": "lstm", "core_kwargs": {"hidden_size": 10**9}}
    ),
    "policy_kwargs of text": _data(policy_kwargs={"core": "lstm", "core_kwargs": {"hidden_size": "x"}}),
    "policy_kwargs without kwargs": _data(policy_kwargs={"core": "lstm", "core_kwargs": None}),
    "core is a number": _data(policy_kwargs={"core": 5}),
    "no space": _data(observation_space=None),
    "action space is text": _data(action_space="x"),
    "callback_state is text": _data(callback_state="x"),
    "callback_state is null": _data(callback_state=None),
    "_run_state is text": _data(_run_state="x"),
    "_run_state is empty": _data(_run_state={}),
    "_last_obs is text": _data(_last_obs="x"),
    "ep_info_buffer is text": _data(ep_info_buffer="x"),
    "an attribute more": _data(nonsense=1),
    "a method is replaced": _data(train=5),
    "the learning rate is text": _data(learning_rate="x", lr_schedule="x"),
}


@pytest.mark.parametrize("change", ARCHIVES)
def test_an_odd_agent_is_refused_or_works(change: str, place: Path) -> None:
    """What does not matter to a command may be odd; then the command ends well."""
    rewrite_archive(place / "a2c" / "checkpoint.zip", ARCHIVES[change])
    faults = []
    for command, words in READERS["a2c"][:2]:
        before = files(place)
        outcome = run_command(
            command, [*filled(words), *(["--quiet"] if command == "train_a2c" else [])], place
        )
        fault = fault_of_command(outcome, "checkpoint", before, files(place))
        if outcome.status != 0 and fault is not None:
            faults.append(f"{command}: {fault}")
        assert not (place / "pwned").exists(), "code of the file was run"
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xff\xfe", b"\x00" * 9, b"updates,episodes\nx,y\n", b"a,b\n1,2\n", b"updates\nnan\n"],
)
@pytest.mark.parametrize("run", READERS)
def test_a_garbled_curve_is_refused_or_mended(run: str, content: bytes, place: Path) -> None:
    """A run that goes on may mend its curve, but not fall over it."""
    for path in (place / run).glob("*.csv"):
        path.write_bytes(content)
    command, words = READERS[run][1]
    before = files(place)
    outcome = run_command(command, [*filled(words), "--quiet", "--no-tensorboard"], place)
    if outcome.status != 0:
        fault = fault_of_command(outcome, r"\.csv|curve", before, files(place))
        assert fault is None, fault


def test_a_held_folder_is_refused(place: Path) -> None:
    import fcntl

    with (place / "a2c" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write("123")
        file.flush()
        refuse("train_a2c", ["--resume", "a2c", "--timesteps", "64"], place, "123")


@pytest.mark.parametrize("lock", ["a folder", "a loop"])
@pytest.mark.parametrize("run", READERS)
def test_an_odd_lock_is_refused(run: str, lock: str, place: Path) -> None:
    path = place / run / ".lock"
    path.touch()
    DAMAGES[lock](path)
    command, words = READERS[run][1]
    refuse(command, [*filled(words), "--quiet"], place, "lock")
