"""Cores inside of what torch does to modules: autocast, compile, export, transforms of functions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from core_faults import CORES, valid
from torch import Tensor, nn

from mnm_rl.cores import MemoryCore

every_choice = pytest.mark.parametrize("choice", CORES)


class Model(nn.Module):
    """A core between layers, as in the middle of somebody's network."""

    def __init__(self, core: MemoryCore):
        super().__init__()
        torch.manual_seed(1)
        self.core, self.encoder, self.head = core, nn.Linear(6, 6), nn.Linear(core.output_size, 2)

    def forward(self, inputs: Tensor, state: Any, resets: Tensor) -> Tensor:
        return self.head(self.core(self.encoder(inputs), state, resets).outputs)

    def step(self, inputs: Tensor, state: Any, resets: Tensor) -> Tensor:
        return self.head(self.core.step(self.encoder(inputs), state, resets)[0])


def gradients(model: nn.Module, outputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(outputs.square().sum(), list(model.parameters()), allow_unused=True))


@every_choice
def test_under_autocast_a_core_runs_in_the_dtype_of_its_parameters(choice):
    core, inputs, state, resets = valid(*CORES[choice])
    encoder = nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = encoder(inputs)
        output, (stepped, _) = core(encoded, state, resets), core.step(encoded[0], state, resets[0])
        with pytest.raises(ValueError, match=r"takes inputs that are .*float32 on cpu.* got torch.float64"):
            core(inputs.double(), state, resets)
    assert encoded.dtype == torch.bfloat16
    assert output.outputs.dtype == stepped.dtype == torch.float32
    expected = core(encoded.float(), state, resets)
    assert torch.equal(output.outputs, expected.outputs)
    assert all(torch.equal(one, other) for one, other in zip(output.state, expected.state, strict=True))
    assert torch.equal(stepped, core.step(encoded.float()[0], state, resets[0])[0])
    output.outputs.sum().backward()
    assert encoder.weight.grad is not None
    assert encoder.weight.grad.abs().max() > 0


@every_choice
def test_in_half_precision_a_core_is_near_itself_in_single_precision(choice):
    name, settings = CORES[choice]
    if settings.get("kernel") == "cpu":
        pytest.skip("the C++ kernel has float and double only")
    core, inputs, _, resets = valid(name, settings)
    inputs = inputs.bfloat16()
    expected = core(inputs.float(), None, resets).outputs
    found = core.bfloat16()(inputs, None, resets).outputs
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.1 * (1 + expected.abs().max())
    found.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in core.parameters())


@every_choice
def test_a_compiled_core_gives_the_same(choice):
    core, inputs, state, resets = valid(*CORES[choice])
    model = Model(core)
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend="aot_eager")
    found, expected = compiled(inputs, state, resets), model(inputs, state, resets)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(model, found), gradients(model, expected), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other)
    step: Any = torch.compile(model.step, backend="aot_eager")
    torch.testing.assert_close(step(inputs[0], state, resets[0]), model.step(inputs[0], state, resets[0]))
    alone: Any = torch.compile(core, backend="aot_eager")
    assert torch.equal(alone(inputs).outputs, core(inputs).outputs)


def test_a_core_that_is_compiled_for_too_many_sizes_still_runs():
    core, *_ = valid(*CORES["mnm-p cpu"])
    torch._dynamo.reset()
    compiled: Any = torch.compile(core, backend="aot_eager", dynamic=False)
    for size in range(1, 14):
        inputs = torch.randn(2, size, 6)
        assert torch.equal(compiled(inputs).outputs, core(inputs).outputs)


def test_a_core_does_not_import_the_compiler_that_nobody_uses():
    code = (
        "import sys, torch, mnm_rl\n"
        "mnm_rl.make_core('lstm', 4)(torch.zeros(2, 1, 4))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@every_choice
def test_export_works_or_names_what_does(choice):
    core, inputs, *_ = valid(*CORES[choice])
    if "cpu" in choice or choice == "lstm-salu":
        with pytest.raises(Exception, match=r"cannot be exported by torch.export as it is; MNM cores can"):
            torch.export.export(core, (inputs,), strict=False)
    else:
        exported = torch.export.export(core, (inputs,), strict=False)
        torch.testing.assert_close(exported.module()(inputs).outputs, core(inputs).outputs)


@every_choice
def test_transforms_of_functions_work_or_name_what_does(choice):
    core, inputs, state, resets = valid(*CORES[choice])

    def loss(inputs: Tensor) -> Tensor:
        return core(inputs, state, resets).outputs.square().sum()

    if "cpu" in choice or "torch" in choice or choice in ("lstm-salu", "tpr-rnn", "entnet"):
        with pytest.raises(RuntimeError, match=r"does not work inside this transform of torch\.func; torch"):
            torch.func.grad(loss)(inputs)
    else:
        wanted = inputs.clone().requires_grad_()
        loss(wanted).backward()
        assert wanted.grad is not None
        torch.testing.assert_close(torch.func.grad(loss)(inputs), wanted.grad)
    if choice == "sdnc":
        found = torch.func.vmap(lambda inputs: core(inputs, state).outputs)(torch.stack([inputs, 2 * inputs]))
        torch.testing.assert_close(found, torch.stack([core(x, state).outputs for x in (inputs, 2 * inputs)]))
    elif choice not in ("plastic", "delta-net", "fast-weights"):
        with pytest.raises(RuntimeError, match="a batch takes the place of vmap"):
            torch.func.vmap(lambda inputs: core(inputs, state).outputs)(torch.stack([inputs, inputs]))
