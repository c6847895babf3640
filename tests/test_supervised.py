"""The supervised trainer: resuming, early stopping, sharing a batch between processes, and its script."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from mnm_rl import updates
from mnm_rl.tasks.babi import BabiTask, repeats_by_error
from mnm_rl.tasks.dictionary import INSTANCES, DictionaryTask
from mnm_rl.training.curves import CurveFile, read_curve
from mnm_rl.training.folder import SUPERVISED, create_run, load_state, read_run
from mnm_rl.training.stopping import stop_on_signals
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict, config_to_dict
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate, learning_rate
from mnm_rl.updates import NonFiniteError

SCRIPT = str(Path(__file__).parent.parent / "scripts" / "train_supervised.py")
TINY = {"hidden_size": 8}
SMALL = SupervisedConfig(
    task_options={"instance": 1},
    core_settings={"hidden_size": 8, "key_size": 4, "value_size": 4, "memory_widths": [5]},
    embedding_size=6,
    batch_size=4,
    iterations=12,
    validate_every=5,
    log_every=4,
    checkpoint_minutes=1e-9,
)


@pytest.fixture(autouse=True)
def _few_held_out_episodes(monkeypatch):
    monkeypatch.setattr("mnm_rl.tasks.generated.GeneratedTask.held_out_episodes", 20)


def trained(config: SupervisedConfig, directory: Path | None = None) -> SupervisedTrainer:
    if directory is not None:
        directory.mkdir(exist_ok=True)
    trainer = SupervisedTrainer(config, config.make_task(), directory)
    trainer.train()
    return trainer


def same_parameters(one: SupervisedTrainer, other: SupervisedTrainer) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, core="mnm-g", task="double-copy", task_options={"length": 3}),
        replace(SMALL, core="lstm-salu", task="priority-sort", task_options={}, core_settings=TINY),
        replace(SMALL, core="lstm", core_settings=TINY),
    ],
    ids=lambda config: f"{config.task}-{config.core}",
)
def test_a_resumed_run_is_the_run_that_never_stopped(config, tmp_path):
    whole = trained(config, tmp_path / "whole")
    trained(replace(config, iterations=7), tmp_path / "parts")
    resumed = SupervisedTrainer(config, config.make_task(), tmp_path / "parts")
    resumed.load(tmp_path / "parts")
    assert resumed.progress.iteration == 7
    resumed.train()
    assert same_parameters(whole, resumed)
    one, other = (read_curve(tmp_path / name / "train.csv") for name in ("whole", "parts"))
    assert one["iteration"] == other["iteration"] == [4, 8, 12]
    assert one["loss"] == other["loss"]
    assert one["symbol_error"] == other["symbol_error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["update", "validation"])
def test_a_run_stopped_by_a_signal_is_the_run_that_never_stopped(number, moment, tmp_path, monkeypatch):
    monkeypatch.setattr("mnm_rl.training.supervised.trainer.EVALUATION_BATCH", 5)
    whole = trained(SMALL, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    stopped = SupervisedTrainer(SMALL, SMALL.make_task(), tmp_path / "parts")

    def interrupted(*arguments):
        # Between the backward pass and the optimizer's step, or between two held-out batches.
        if stopped.progress.iteration == 5:
            os.kill(os.getpid(), number)
        return original(*arguments)

    if moment == "update":
        place, name = updates, "clip_gradients"
    else:
        place, name = type(stopped.task), "count_errors"
    original = getattr(place, name)
    handlers = [(each, signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)]
    stop_on_signals(stopped.request_stop)
    try:
        monkeypatch.setattr(place, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    finally:
        monkeypatch.setattr(place, name, original)
        for each, handler in handlers:
            signal.signal(each, handler)
    assert stopped.saved_iteration == 5
    resumed = SupervisedTrainer(SMALL, SMALL.make_task(), tmp_path / "parts")
    resumed.load(tmp_path / "parts")
    resumed.train()
    assert same_parameters(whole, resumed)
    for curve in ("train.csv", "valid.csv"):
        one, other = (read_curve(tmp_path / name / curve) for name in ("whole", "parts"))
        assert {**one, "seconds": []} == {**other, "seconds": []}


def test_training_is_deterministic_and_depends_on_the_seed():
    one, other = trained(SMALL), trained(SMALL)
    assert same_parameters(one, other)
    assert not same_parameters(one, trained(replace(SMALL, seed=1)))


def test_training_lowers_the_loss(tmp_path):
    config = replace(SMALL, core="lstm", task="double-copy", task_options={"length": 1})
    config = replace(config, core_settings={"hidden_size": 30})
    trained(replace(config, learning_rate=0.01, iterations=60), tmp_path)
    losses = read_curve(tmp_path / "train.csv")["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_best_parameters_are_those_of_the_lowest_validation_error(tmp_path):
    trainer = trained(replace(SMALL, validate_every=2), tmp_path)
    errors = read_curve(tmp_path / "valid.csv")["symbol_error"]
    assert trainer.progress.best_error == pytest.approx(min(errors))
    trainer.model.load_state_dict(load_state(tmp_path / "best.pt")["model"])
    counts = evaluate(trainer.model, trainer.task, "valid")
    assert counts.symbol_error == pytest.approx(min(errors))


def test_of_equally_good_parameters_the_latest_are_kept(tmp_path):
    config = replace(SMALL, iterations=3, validate_every=1, learning_rate=1e-7)
    trainer = trained(config, tmp_path)
    errors = read_curve(tmp_path / "valid.csv")["symbol_error"]
    assert len(errors) == 3
    assert len(set(errors)) == 1
    kept = load_state(tmp_path / "best.pt")["model"]
    assert all(torch.equal(kept[name], value) for name, value in trainer.model.state_dict().items())
    assert any(
        not torch.equal(kept[name], value)
        for name, value in trained(replace(config, iterations=1)).model.state_dict().items()
    )


def test_early_stopping():
    config = replace(SMALL, iterations=1000, validate_every=1, learning_rate=1e-12, patience=3)
    assert trained(config).progress.iteration == 4
    assert trained(replace(config, stop_error=1.0)).progress.iteration == 1


def test_learning_rate_schedules():
    config = replace(SMALL, iterations=100, warmup=10, schedule="linear", learning_rate=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 50) == pytest.approx(0.5)
    assert learning_rate(replace(config, schedule="cosine"), 50) == pytest.approx(0.5)
    assert learning_rate(replace(config, schedule="constant"), 99) == 1.0


def test_non_finite_updates_end_the_run_and_leave_the_checkpoint(tmp_path):
    config = replace(SMALL, learning_rate=1e37, iterations=50, checkpoint_minutes=1e9)
    trainer = SupervisedTrainer(config, config.make_task(), tmp_path)
    trainer.save()
    with pytest.raises(NonFiniteError, match="20 times in a row, the last time at iteration 21"):
        trainer.train()
    state = load_state(tmp_path / "checkpoint.pt")
    assert all(value.isfinite().all() for value in state["model"].values())
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def _gradient_of_a_share(rank: int, processes: int, config: SupervisedConfig, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", processes)  # pyright: ignore[reportPrivateImportUsage]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    trainer.loss(trainer.task.training_batch(0, trainer.batch_size, 0))[0].backward()
    if rank == 0:
        torch.save([p.grad for p in trainer.model.parameters()], f"{folder}/gradient.pt")
    # Nobody leaves while the other still uses the connection, nor while the model holds on to the group.
    distributed.barrier()
    del trainer
    distributed.destroy_process_group()
    # The group's threads sometimes outlive it and abort an ordinary exit; what is tested is done by now.
    os._exit(0)


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path):
    alone = SupervisedTrainer(SMALL, SMALL.make_task(), None)
    alone.loss(alone.task.training_batch(0, 4, 0))[0].backward()
    arguments = (2, SMALL, str(tmp_path))
    multiprocessing.spawn(_gradient_of_a_share, arguments, nprocs=2)  # pyright: ignore
    shared = torch.load(tmp_path / "gradient.pt")
    for one, other in zip(alone.model.parameters(), shared, strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-4, atol=1e-7)


def test_config_survives_json():
    values = config_to_dict(replace(SMALL, learning_rate=3e-4))
    again = config_from_dict(json.loads(json.dumps(values)))
    assert config_to_dict(again) == values
    assert again.all_core_settings() == SMALL.all_core_settings()
    assert again.options == SMALL.options


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(core="elman"), "Unknown core 'elman'; known cores: mnm-p"),
        (dict(core_settings={"hidden_size": 0}), "hidden_size must be at least 1, got 0"),
        (dict(task="sorting"), "Unknown task 'sorting'; known tasks: dictionary, double-copy"),
        (dict(task="no_such_module:Options"), "cannot be imported"),
        (dict(task="mnm_rl.tasks:Task"), "is not a subclass of mnm_rl.tasks.TaskOptions"),
        (dict(learning_rate=math.nan), "learning_rate must be positive, got nan"),
        (dict(iterations=0), "iterations must be at least 1, got 0"),
        (dict(learning_rate=-1.0), "learning_rate must be positive, got -1.0"),
        (dict(task="double-copy", task_options={"instance": 2}), "double-copy has no option instance; its"),
        (dict(task_options={"instance": 5}), "instance must be one of 1, 2, 3, 4 or nothing, got 5"),
        (dict(task_options={"instance": 2, "length": 3}), "either an instance or support_size and length"),
        (dict(task_options={"support_size": 2}), "go together"),
        (
            dict(task_options={"support_size": 2, "length": 3, "smaller_instances": True}),
            "belongs to the instances 1 to 4",
        ),
        (dict(task="babi", task_options={"smaller_instances": True}), "babi has no option smaller_instances"),
        (dict(task="babi", task_options={"tasks": "0"}), "No bAbI task 0; known tasks: 1 to 20"),
        (dict(task="priority-sort", task_options={"vectors": 3}), "predicted must be from 1 to the number"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SupervisedConfig(**settings).check()


def test_curve_files_are_cut_where_a_run_goes_on(tmp_path):
    path = tmp_path / "curve.csv"
    curve = CurveFile(path, "iteration")
    for iteration in (1, 2, 3):
        curve.append({"iteration": iteration, "loss": 0.1 * iteration})
    with path.open("a") as file:
        file.write("4")  # a killed process can leave half a line
    CurveFile(path, "iteration", after=2).append({"iteration": 3, "loss": 1.0})
    assert read_curve(path) == {"iteration": [1, 2, 3], "loss": [0.1, 0.2, 1.0]}


def script(*arguments: str, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


SCRIPT_ARGUMENTS = [
    *(
        "--instance",
        "1",
        "--hidden-size",
        "8",
        "--embedding-size",
        "6",
        "--batch-size",
        "4",
        "--no-tensorboard",
    ),
    *(
        "--core.key-size",
        "4",
        "--core.value-size",
        "4",
        "--checkpoint-minutes",
        "1e-9",
        "--log-every",
        "1",
    ),
]


def test_a_resumed_run_repeats_what_the_last_validation_found_wrong(tmp_path):
    babi = {"tasks": "1,20", "size": "1k", "origin": "generated", "repeat": "auto"}
    config = SupervisedConfig(task="babi", core="lstm", core_settings={"hidden_size": 3}, task_options=babi)
    config = replace(config, embedding_size=3, batch_size=4, iterations=12, log_every=4, validate_every=5)
    whole = trained(config)
    (tmp_path / "parts").mkdir()
    stopped = SupervisedTrainer(config, config.make_task(), tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        stopped.train(lambda kind, row: stopped.request_stop() if row["iteration"] == 8 else None)
    resumed = SupervisedTrainer(config, config.make_task(), tmp_path / "parts")
    resumed.load(tmp_path / "parts")
    assert resumed.progress.iteration == 8
    assert isinstance(resumed.task, BabiTask)
    assert resumed.task.repeat == repeats_by_error(resumed.progress.errors) != {}
    resumed.train()
    assert same_parameters(whole, resumed)
    assert not same_parameters(whole, trained(config.with_task_options(repeat="")))


def test_a_run_killed_again_and_again_always_resumes(tmp_path):
    folder = str(tmp_path / "run")
    arguments = [*SCRIPT_ARGUMENTS, "--iterations", "100000", "--log-dir", folder]
    reached = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, SCRIPT, *arguments], stdout=subprocess.DEVNULL)
        _wait_for_progress(tmp_path / "run", reached + 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached = load_state(tmp_path / "run" / "checkpoint.pt")["progress"]["iteration"]
        arguments = ["--resume", folder, "--no-tensorboard"]
    assert reached >= 60
    done = script("--resume", folder, "--iterations", str(reached + 5), "--no-tensorboard")
    assert done.returncode == 0, done.stderr
    iterations = read_curve(tmp_path / "run" / "train.csv")["iteration"]
    assert iterations == list(range(1, reached + 6))
    assert not list((tmp_path / "run").glob(".*"))


def test_a_resumed_run_may_change_its_rate_and_says_so(tmp_path):
    folder = tmp_path / "run"
    arguments = [*SCRIPT_ARGUMENTS, "--iterations", "2", "--log-dir", str(folder)]
    assert script(*arguments).returncode == 0
    refused = script("--resume", str(folder), "--batch-size", "8")
    assert refused.returncode == 2
    assert "has batch_size 4, not 8; a resumed run keeps its settings" in refused.stderr
    changed = ["--iterations", "4", "--learning-rate", "0.5", "--schedule", "linear", "--no-tensorboard"]
    done = script("--resume", str(folder), *changed)
    assert done.returncode == 0, done.stderr
    assert read_curve(folder / "train.csv")["learning_rate"] == [0.001, 0.001, 0.25, 0.125]
    document = read_run(folder)
    assert document["config"]["learning_rate"] == 0.5
    assert document["changes"][0]["at"] == "iteration 2"
    assert document["changes"][0]["learning_rate"] == {"from": 0.001, "to": 0.5}


def _wait_for_progress(folder: Path, iteration: int) -> None:
    path = folder / "checkpoint.pt"
    for _ in range(1200):
        if path.exists() and load_state(path)["progress"]["iteration"] >= iteration:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint at iteration {iteration}")


def test_the_script_refuses_what_it_cannot_do(tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "precious.txt").write_text("here before")
    refused = script(*SCRIPT_ARGUMENTS, "--log-dir", str(used))
    assert refused.returncode == 2
    assert "is not an empty folder" in refused.stderr
    assert os.listdir(used) == ["precious.txt"]
    nothing = script("--resume", str(tmp_path / "nothing"))
    assert nothing.returncode == 2
    assert "There is no run at" in nothing.stderr


def test_a_checkpoint_of_another_core_or_half_a_checkpoint_is_refused(tmp_path):
    trained(SMALL, tmp_path)
    other = replace(SMALL, core="lstm", core_settings=TINY)
    with pytest.raises(ValueError, match=r"was made with core mnm-p, and .*config.json says lstm"):
        SupervisedTrainer(other, other.make_task(), None).load(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        SupervisedTrainer(SMALL, SMALL.make_task(), None).load(tmp_path)
    with pytest.raises(ValueError, match="There is no run in"):
        read_run(tmp_path)


def test_a_run_is_evaluated_with_its_best_parameters(tmp_path):
    trainer = trained(replace(SMALL, validate_every=2), tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    create_run(tmp_path / "copy", SUPERVISED, config_to_dict(trainer.config))
    (tmp_path / "best.pt").rename(tmp_path / "copy" / "best.pt")
    config, task, counts = evaluate_run(tmp_path / "copy", "valid")
    assert counts.symbol_error == pytest.approx(trainer.progress.best_error)
    text = describe_errors(config, task, counts, "valid")
    assert text.startswith("dictionary, instance 1, mnm-p, seed 0: valid error ")
    assert f"{counts.symbol_error:.3%} of 20 symbols" in text
    config, task, counts = evaluate_run(tmp_path / "copy", instance=2)
    assert task == DictionaryTask(*INSTANCES[2])
    head = "dictionary, instance 2, mnm-p, seed 0: test error "
    assert describe_errors(config, task, counts).startswith(head)
