"""The C++ kernel's tanh and logistic function over all sizes of numbers, and its gradients behind them.

Inputs of any size are usual: counts, prices, pixels. Gates that they saturate must be exactly 1 or 0, because
the gradient of a saturated gate, which should be 0, is multiplied by the size of the inputs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import build, cpu

BOUND = 5e-7  # as vector.h states it
BOUND_OF_KERNELS = 1e-5  # between two kernels, norm of the difference over the norm


@pytest.fixture(autouse=True)
def operators() -> Any:
    try:
        return cpu.operators()
    except build.BuildError:
        pytest.skip("no C++ compiler")


@pytest.fixture(scope="module")
def numbers() -> Tensor:
    """A million float32 numbers over all bit patterns, with infinities, zeros, denormals and NaN."""
    patterns = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32)
    special = torch.tensor(
        [torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e-45, -1e-45, 1e-39, 3.4e38, -3.4e38]
    )
    edges = torch.cat([torch.linspace(a, b, 20_001) for a, b in ((7, 10), (16, 18), (86, 105))])
    return torch.cat([patterns.view(torch.float32), special, edges, -edges])


def test_tanh_over_all_numbers(operators: Any, numbers: Tensor) -> None:
    found, exact = operators.activation(numbers, False), torch.tanh(numbers.double())
    known = ~numbers.isnan()
    assert len(numbers) > 10**6
    assert torch.equal(found.isnan(), numbers.isnan())
    error = (found.double() - exact)[known].abs()
    assert (error <= BOUND * exact[known].abs()).all()
    assert error.max() < 4e-7
    assert (found[known].abs() <= 1).all()
    saturated = exact.float().abs() == 1
    assert saturated.sum() > 10**5
    assert torch.equal(found[saturated], numbers[saturated].sign())


def test_logistic_over_all_numbers(operators: Any, numbers: Tensor) -> None:
    found, exact = operators.activation(numbers, True), torch.sigmoid(numbers.double())
    known = ~numbers.isnan()
    assert torch.equal(found.isnan(), numbers.isnan())
    error = (found.double() - exact)[known].abs()
    assert (error <= (BOUND * exact[known]).where(numbers[known] > -87, 1e-37)).all()
    assert ((found >= 0) & (found <= 1))[known].all()
    assert (found[exact.float() == 1] == 1).all()
    assert (found[numbers < -88.4] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_large_inputs_give_the_torch_kernels_values_and_gradients(write_rule: Any, scale: float) -> None:
    found = {kernel: _results(kernel, write_rule, scale) for kernel in ("cpu", "torch")}
    assert found["cpu"].keys() == found["torch"].keys()
    for name, expected in found["torch"].items():
        difference = (found["cpu"][name] - expected).norm() / expected.norm().clamp(min=1e-30)
        assert difference < BOUND_OF_KERNELS, (name, difference)


def _results(kernel: Any, write_rule: Any, scale: float) -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = MNMConfig(
        write_rule=write_rule,
        hidden_size=32,
        output_size=4,
        key_size=12,
        value_size=12,
        memory_widths=(24,),
        heads=2,
        output_activation="tanh",
        recall_weights=(1.0, 0.5),
        kernel=kernel,
    )
    core = MNMCore(6, config)
    inputs = (scale * torch.randn(12, 9, 6)).requires_grad_()
    output = core(inputs, None, torch.rand(12, 9) < 0.1)
    (output.outputs.square().mean() + output.meta_loss.mean()).backward()
    gradients = {f"d {name}": p.grad for name, p in [*core.named_parameters(), ("inputs", inputs)]}
    results = {
        "outputs": output.outputs,
        "meta_loss": output.meta_loss,
        **output.state._asdict(),
        **gradients,
    }
    return {name: value.detach() for name, value in results.items() if value is not None}


@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_not_a_number_stays_one_and_stays_in_its_sequence(write_rule: Any) -> None:
    torch.manual_seed(0)
    core = MNMCore(3, MNMConfig(write_rule=write_rule, hidden_size=8, key_size=5, value_size=5, kernel="cpu"))
    inputs = torch.randn(6, 4, 3)
    good = core(inputs)
    inputs[2, 1, 0] = torch.nan
    found = core(inputs)
    assert found.outputs[2:, 1].isnan().all()
    assert found.meta_loss[2:, 1].isnan().all()
    assert torch.equal(found.outputs[:2], good.outputs[:2])
    others = [0, 2, 3]
    torch.testing.assert_close(found.outputs[:, others], good.outputs[:, others])
    (found.outputs.sum() + found.meta_loss.sum()).backward()
    assert core.controller.weight_ih.grad is not None
    assert core.controller.weight_ih.grad.isnan().all()


@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_infinite_inputs_saturate_all_gates(write_rule: Any) -> None:
    outputs = {}
    for kernel in ("cpu", "torch"):
        torch.manual_seed(0)
        core = MNMCore(
            3, MNMConfig(write_rule=write_rule, hidden_size=8, key_size=5, value_size=5, kernel=kernel)
        )
        inputs = torch.randn(6, 4, 3)
        inputs[2, 1, 0] = torch.inf
        outputs[kernel] = core(inputs).outputs
    assert outputs["torch"].isfinite().all()
    torch.testing.assert_close(outputs["cpu"], outputs["torch"], rtol=0, atol=1e-5)
