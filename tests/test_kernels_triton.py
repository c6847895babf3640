"""The Triton kernels against the plain loop: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import INPUTS, Case, beyond_rounding, cases, configs, errors, poisoned
from torch import Tensor

from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import BuildError, choose

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for torch's deterministic mode

pytest.importorskip("triton", reason="triton is not installed")
layout: ModuleType = pytest.importorskip("mnm_rl.kernels.triton.layout")

TILES = layout.TILES[torch.float64]
SMALL_TILES = TILES if ON_GPU else layout.Tiles(memory=16, rows=4, columns=4)
"""Smaller than the matrices of the tests; a GPU gets matrices that are larger than its tiles."""


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    with poisoned():
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_interpreter() -> Iterator[None]:
    """The interpreter patches triton.language at every call of a device function; once per kernel will do."""
    with pytest.MonkeyPatch.context() as patch:
        if not ON_GPU:
            interpreter = importlib.import_module("triton.runtime.interpreter")
            patched = set()

            def call(function: Any, *args: object, **kwargs: object) -> object:
                module = function.fn.__module__
                if module.startswith("triton.") and module not in patched:
                    patched.add(module)
                    interpreter._patch_lang(function.fn)
                return function.rewrite()(*args, **kwargs)

            patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    config = draw(configs(widest=6, layers=3, most=2))
    steps, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return Case(config, steps, batch, draw(st.booleans()), draw(st.integers(0, 10**6)))


drawn_cases = cases() if ON_GPU else small_cases()


def everything(write_rule: str, **changes: object) -> Case:
    """A case with heads, delays, layers of several widths, and resets in the first, third and last step."""
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        hidden_size=5,
        key_size=3,
        value_size=6,
        memory_widths=(4, 5),
        heads=2,
        recall_weights=(1.0, 0.5, 0.25),
        **changes,  # pyright: ignore[reportArgumentType]
    )
    return Case(config, 4, 2, with_resets=True, seed=0, resets=((1, 0), (0, 0), (1, 1), (1, 0)))


def wrong(case: Case, dtype: torch.dtype = torch.float64, limit: float = 1e-9) -> dict[str, float]:
    """What differs from the plain loop in float64 by more than ``limit``."""
    found = errors(case.run("triton", dtype), case.run("reference", torch.float64))
    return {name: error for name, error in found.items() if not error < limit}


@settings(max_examples=20 if ON_GPU else 8, deadline=None)
@given(case=drawn_cases, tiles=st.sampled_from([TILES, SMALL_TILES]))
def test_equals_the_plain_loop_in_float64(case: Case, tiles: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layout.TILES, torch.float64, tiles)
        assert beyond_rounding(case.run("triton", torch.float64), case) == {}


@pytest.mark.parametrize(
    ("write_rule", "normalization", "output_activation", "tiles"),
    [
        ("local", "squared-norm", "tanh", SMALL_TILES),
        ("gradient", "squared-norm", "tanh", SMALL_TILES),
        ("gradient", "width", "identity", TILES),
    ],
)
def test_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
    write_rule: str,
    normalization: str,
    output_activation: str,
    tiles: object,
) -> None:
    monkeypatch.setitem(layout.TILES, torch.float64, tiles)
    case = everything(
        write_rule,
        normalization=normalization,
        output_activation=output_activation,
        rate_per_layer=write_rule == "gradient",
    )
    assert wrong(case) == {}


def test_snapshots_change_no_result() -> None:
    case, with_snapshots = everything("local"), everything("local", snapshot_every=3)
    found = errors(with_snapshots.run("triton", torch.float64), case.run("reference", torch.float64))
    assert all(error < 1e-9 for error in found.values())


@settings(max_examples=10 if ON_GPU else 4, deadline=None)
@given(case=drawn_cases)
def test_float32_is_as_exact_as_rounding_allows(case: Case) -> None:
    # As for the other backends: some draws amplify any error, and the yardstick is what the plain loop makes
    # of rounding and of an error of 5e-7 in tanh.
    exact = case.run("reference", torch.float64)
    changed = [case.run("reference", torch.float32)]
    changed += [case.run("reference", torch.float64, nudge) for nudge in range(3)]
    usual = max(max(errors(results, exact).values()) for results in changed)
    assert wrong(case, torch.float32, 1e-5 + 10 * usual) == {}


@pytest.mark.skipif(not ON_GPU, reason="too slow in Triton's interpreter")
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
@pytest.mark.parametrize("steps", [12, 1000])
def test_wide_memory_and_long_sequences(write_rule: str, steps: int) -> None:
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        hidden_size=45,
        key_size=70,
        value_size=61,
        memory_widths=(110, 131),
        heads=3,
        recall_weights=(1.0, 0.5, 0.25),
    )
    case = Case(config, steps, batch=5 if steps > 100 else 37, with_resets=steps < 100, seed=1)
    assert wrong(case) == {}
    usual = errors(case.run("reference", torch.float32), case.run("reference", torch.float64))
    assert wrong(case, torch.float32, 1e-4 + 5 * max(usual.values())) == {}


def make_core(kernel: str, write_rule: str = "local") -> MNMCore:
    torch.manual_seed(0)
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        hidden_size=4,
        key_size=3,
        value_size=2,
        memory_widths=(3,),
        recall_weights=(1.0, 0.5, 0.5),
        kernel=kernel,  # pyright: ignore[reportArgumentType]
    )
    return MNMCore(INPUTS, config).to(DEVICE, torch.float64)


@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_steps_without_gradient_equal_the_plain_loop(write_rule: str) -> None:
    inputs = torch.randn(4, 2, INPUTS, dtype=torch.float64, device=DEVICE)
    resets = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 1]], dtype=torch.bool, device=DEVICE)

    def act(kernel: str) -> list[Tensor]:
        core = make_core(kernel, write_rule)
        with torch.no_grad():
            first = core(inputs[:3], None, resets[:3])
            output, state = core.step(inputs[3], first.state, resets[3])
        return [first.outputs, first.meta_loss, output, *state]

    torch.testing.assert_close(act("triton"), act("reference"))


def test_leaves_its_arguments_alone_and_can_go_back_twice() -> None:
    core = make_core("triton")
    inputs = torch.randn(2, 2, INPUTS, dtype=torch.float64, device=DEVICE)
    state = core(inputs[:1]).state
    before = [inputs.clone(), *[field.clone() for field in state]]
    output = core(inputs, state)
    once = torch.autograd.grad(
        output.outputs.sum(), tuple(core.parameters()), retain_graph=True, allow_unused=True
    )
    twice = torch.autograd.grad(output.outputs.sum(), tuple(core.parameters()), allow_unused=True)
    torch.testing.assert_close(twice, once, rtol=0, atol=0)
    torch.testing.assert_close([inputs, *state], before, rtol=0, atol=0)


def test_choice_of_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose("auto", cpu, torch.float32) != "triton"
    for dtype in (torch.float32, torch.float64):
        assert choose("triton", cuda, dtype) == "triton"
        assert choose("auto", cuda, dtype) == "graphs"
    with pytest.raises(ValueError, match="takes float32 or float64, not"):
        choose("triton", cuda, torch.bfloat16)
    monkeypatch.setattr("mnm_rl.kernels.triton.INTERPRETED", True)
    assert choose("triton", cpu, torch.float32) == "triton"
    monkeypatch.setattr("mnm_rl.kernels.triton.INTERPRETED", False)
    with pytest.raises(
        ValueError, match="on CUDA devices, or with TRITON_INTERPRET=1 on the CPU, not on cpu"
    ):
        choose("triton", cpu, torch.float32)


def test_without_triton_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "mnm_rl.kernels.triton", None)
    with pytest.raises(BuildError, match="needs the package triton: pip install"):
        choose("triton", torch.device("cuda"), torch.float32)


def test_compiles_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    # The interpreter takes more than the compiler does.
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["forward_kernel", "backward_kernel"] * 2, result.stderr


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import MNMState
from mnm_rl.kernels.triton import operation

class Driver:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    get_current_stream = lambda self, device: 0

def compile_only(kernel):
    run = kernel.run

    def warm_up(*args, warmup, **kwargs):
        assert run(*args, warmup=True, **kwargs).asm["cubin"]
        print(kernel.__name__)

    kernel.run = warm_up

triton.runtime.driver.set_active(Driver())
compile_only(operation.forward_kernel)
compile_only(operation.backward_kernel)
for write_rule, dtype in (("local", torch.float32), ("gradient", torch.float64)):
    config = MNMConfig(
        write_rule=write_rule, hidden_size=8, key_size=6, value_size=5, memory_widths=(4,), heads=2
    )
    core = MNMCore(3, config).to(dtype)
    result = operation.scan(
        core._scan_parameters(),
        core._scan_settings,
        torch.randn(2, 3, 3, dtype=dtype),
        MNMState(*core.initial_state(3)),
        None,
        core.initial_memory,
    )
    result.controls.sum().backward()
"""
