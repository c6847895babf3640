"""Tries an installed wheel where there is neither a clone nor a compiler; ``.ci/wheel`` runs it.

The prebuilt kernel must be the one in use and compute what the plain loop does, values and gradients, and
every command of ``mnm-rl`` must run, each on the smallest thing it can do.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch

import mnm_rl
from mnm_rl.commands.main import COMMANDS, main

TINY = "--hidden-size 4 --no-tensorboard --quiet"
SHORT = '--n-envs 2 --n-steps 8 --timesteps 64 --log-every 1 --log-dir a2c --env-kwargs {"horizon":4}'
RUNS = (
    f"train-a2c --env MNMMaze-3x3-v0 {SHORT} {TINY}",
    f"train-ppo --env CartPole-v1 --n-envs 2 --n-steps 16 --timesteps 64 --log-dir ppo {TINY}",
    f"train-supervised --task dictionary --iterations 2 --log-dir dictionary {TINY}",
    "evaluate a2c --episodes 4",
    "save-pretrained a2c --to model --episodes 4",
    "evaluate maze-highest --episodes 4 --video maze.gif",
    "analyze dictionary",
    "plot-curves a2c --window 0 --out curve.png",
    "generate-babi --out babi --tasks 1",
    "reproduce rl --scale smoke --environments CartPoleNoVel --cores lstm",
    "tune --help",
    "zoo --help",
    "info",
)


def run(words: str) -> str:
    """A command's output; all run in one process, because importing torch takes seconds."""
    said = io.StringIO()
    sys.argv = ["mnm-rl", *words.split()]
    status = 0
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    assert not status, f"mnm-rl {words} ended with {status}: {said.getvalue()}"
    return said.getvalue()


def gradients(kernel: str) -> list[torch.Tensor]:
    """Outputs of a small core and the gradients of its parameters."""
    torch.manual_seed(0)
    core = mnm_rl.make_core("mnm-p", input_size=3, hidden_size=16, kernel=kernel).double()
    output = core(torch.randn(6, 4, 3, dtype=torch.float64), resets=torch.arange(24).view(6, 4) % 5 == 0)
    (output.outputs.square().mean() + output.meta_loss.mean()).backward()
    return [output.outputs.detach(), *(p.grad for p in core.parameters() if p.grad is not None)]


def check() -> None:
    """Everything, with the seconds of each part."""
    root = Path(mnm_rl.__file__).parent
    assert "site-packages" in root.parts, f"{root} is no installed wheel"
    assert all(shutil.which(name) is None for name in ("c++", "g++", "clang++", "gcc", "cc", "ninja"))
    assert {line.split()[0] for line in RUNS} == set(COMMANDS)
    begin = time.monotonic()
    told = json.loads(run("info --json"))
    assert told["kernel"]["origin"] == "prebuilt", told["kernel"]
    assert told["compiler"].startswith("none"), told["compiler"]
    print(f"{time.monotonic() - begin:6.1f} s  info: {told['kernel']['reason']}")
    plain, fast = gradients("reference"), gradients("cpu")
    assert len(plain) == len(fast) > 8
    for expected, found in zip(plain, fast, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for words in RUNS:
        begin = time.monotonic()
        run(words)
        print(f"{time.monotonic() - begin:6.1f} s  {words.split()[0]}", flush=True)
    assert not Path(".cache", "mnm_rl", "kernels").exists(), "something has been compiled"
    assert all(Path(name).exists() for name in ("curve.png", "maze.gif", "model/model.safetensors"))
    assert os.environ["HOME"] == os.getcwd()


if __name__ == "__main__":
    check()
