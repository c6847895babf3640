"""Several processes share a run: they skip updates together, and each takes a GPU of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from mnm_rl.training import devices
from mnm_rl.training.curves import read_curve
from mnm_rl.training.devices import own_device
from mnm_rl.training.folder import load_state
from mnm_rl.training.supervised import trainer as module
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer
from mnm_rl.updates import GuardedOptimizer

ROOT = Path(__file__).parent.parent
RUN = [
    *("--task", "double-copy", "--core", "lstm", "--hidden-size", "8", "--embedding-size", "4"),
    *("--length", "3", "--batch-size", "4", "--iterations", "3", "--validate-every", "3", "--log-every", "1"),
]


def _step_with_one_bad_loss(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(  # pyright: ignore[reportPrivateImportUsage]
        f"{folder}/store", 2
    )
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    parameter = nn.Parameter(torch.ones(3))
    guard = GuardedOptimizer(torch.optim.SGD([parameter], 0.1), [parameter], None)
    # Gradients are finite everywhere, but one process's loss is not.
    applied = [
        guard.step(parameter.sum() + (torch.inf if rank == bad else 0.0), "here").applied
        for bad in (None, 1, None, 0)
    ]
    torch.save((applied, guard.skipped, parameter.data), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    # As in test_supervised.py.
    os._exit(0)


def test_two_processes_skip_an_update_together(tmp_path):
    multiprocessing.spawn(_step_with_one_bad_loss, (str(tmp_path),), nprocs=2)  # pyright: ignore
    for rank in range(2):
        applied, skipped, parameter = torch.load(tmp_path / f"{rank}.pt")
        assert applied == [True, False, True, False]
        assert skipped == 2
        torch.testing.assert_close(parameter, torch.full((3,), 0.8))


def test_torchrun_trains_one_run_with_two_processes(tmp_path):
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(ROOT / "scripts" / "train_supervised.py"), *RUN, "--log-dir", str(tmp_path / "run")),
            *("--no-tensorboard", "--quiet"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert read_curve(tmp_path / "run" / "train.csv")["iteration"] == [1, 2, 3]
    assert load_state(tmp_path / "run" / "checkpoint.pt")["progress"]["iteration"] == 3


class OnlyOneDevice:
    """A group of processes that shares tensors of one kind of device alone, as NCCL does.

    Args:
        device: its type.
    """

    def __init__(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.shared = device, 0
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_rank", lambda: 1)
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(distributed, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor: torch.Tensor, operation: object) -> None:
        if tensor.device.type != self.device:
            raise RuntimeError(f"No backend type associated with device type {tensor.device.type}")
        self.shared += 1


class Elsewhere(torch.Tensor):
    """A tensor of the processor that says it lies on a GPU, and so does what is computed from it."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.device("cuda", 1)


def test_processes_agree_where_the_parameters_are(monkeypatch):
    group = OnlyOneDevice("cuda", monkeypatch)
    monkeypatch.setattr(
        "mnm_rl.updates.clip_gradients", lambda parameters, most: torch.tensor(1.0).as_subclass(Elsewhere)
    )
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    parameter = nn.Parameter(torch.ones(3))
    guard = GuardedOptimizer(torch.optim.SGD([parameter], 0.1), [parameter], None)
    assert guard.step(parameter.sum(), "here").applied
    assert group.shared == 1


@pytest.fixture
def gpus(monkeypatch) -> list[torch.device]:
    """Pretends that there are two GPUs; the ones that were chosen for what does not say where."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("number", "local", "expected"), [(3, "1", 1), (2, "0", 0), (3, None, 1), (2, None, 0)]
)
def test_each_process_takes_a_gpu_of_its_own(monkeypatch, gpus, number, local, expected):
    monkeypatch.setattr(devices, "process_share", lambda: (number, 4))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert own_device("cuda") == torch.device("cuda", expected)
    assert gpus == [torch.device("cuda", expected)]


def test_a_named_gpu_a_processor_and_a_single_process_are_left_alone(monkeypatch, gpus):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(devices, "process_share", lambda: (1, 2))
    assert own_device("cuda:0") == torch.device("cuda", 0)
    assert own_device("cpu") == torch.device("cpu")
    assert gpus == []


def test_more_processes_than_gpus_are_refused(monkeypatch, gpus):
    monkeypatch.setattr(devices, "process_share", lambda: (2, 3))
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="Process 2 on this machine has no GPU of its own: there are 2 for"):
        own_device("cuda")


def test_the_trainer_uses_the_gpu_of_its_process(monkeypatch, gpus):
    monkeypatch.setattr(devices, "process_share", lambda: (1, 2))
    monkeypatch.setattr(module, "process_share", lambda: (1, 2))
    monkeypatch.setenv("LOCAL_RANK", "1")
    moved: list[torch.device] = []
    monkeypatch.setattr(nn.Module, "to", lambda model, device: moved.append(device) or model)
    monkeypatch.setattr(module, "DistributedDataParallel", lambda model: model)
    config = SupervisedConfig(core="lstm", core_settings={"hidden_size": 4}, batch_size=2)
    assert SupervisedTrainer(config, config.make_task(), None, "cuda").device == torch.device("cuda", 1)
    assert moved == [torch.device("cuda", 1)]
