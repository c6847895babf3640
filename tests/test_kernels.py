"""Every backend of the time loop against the plain loop: outputs, final state, meta loss, all gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    INPUTS,
    Case,
    amplified_rounding,
    beyond_rounding,
    cases,
    errors,
    largest,
    plain,
    poisoned,
)
from torch import Tensor

from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import choose
from mnm_rl.kernels.build import BuildError, find_compiler
from mnm_rl.kernels.snapshots import segment_lengths


def _has_compiler() -> bool:
    try:
        find_compiler()
    except BuildError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="no C++ compiler")
# Each write is several times larger than the memory, which grows from 1 to 7e7 and saturates its tanh.
DIVERGING = Case(
    MNMConfig(
        write_rule="gradient",
        hidden_size=1,
        output_size=2,
        key_size=1,
        value_size=1,
        memory_widths=(14,),
        normalization="width",
        recall_weights=(0.25,),
    ),
    steps=11,
    batch=1,
    with_resets=False,
    seed=0,
)
BACKENDS = ["torch", pytest.param("cpu", marks=needs_compiler)]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    with poisoned():
        yield


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(case=cases())
@example(case=DIVERGING)
def test_equals_the_plain_loop_in_float64(backend: str, case: Case) -> None:
    assert beyond_rounding(case.run(backend, torch.float64), case) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_diverging_memory_costs_the_kernels_less_than_rounding_costs_the_plain_loop(backend: str) -> None:
    assert DIVERGING.growth() > 1e7
    assert amplified_rounding(DIVERGING) > 1e-2
    assert largest(errors(DIVERGING.run(backend, torch.float64), plain(DIVERGING, torch.float64))) < 1e-7


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_float32_is_as_exact_as_rounding_and_tanh_allow(backend: str, case: Case) -> None:
    # Some draws amplify any error a thousandfold. The yardstick is what the plain loop makes of rounding and
    # of an error in tanh within its bound.
    exact = case.run("reference", torch.float64)
    changed = [case.run("reference", torch.float32)]
    changed += [case.run("reference", torch.float64, nudge) for nudge in range(3)]
    usual = max(max(errors(results, exact).values()) for results in changed)
    found = errors(case.run(backend, torch.float32), exact)
    assert {name: error for name, error in found.items() if not error < 1e-5 + 10 * usual} == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_wide_memory_and_many_sequences(backend: str, write_rule: str) -> None:
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        hidden_size=45,
        key_size=70,
        value_size=61,
        memory_widths=(110, 131),
        heads=3,
        recall_weights=(1.0, 0.5, 0.25),
    )
    case = Case(config, steps=12, batch=37, with_resets=True, seed=1)
    exact = plain(case, torch.float64)
    assert largest(errors(case.run(backend, torch.float64), exact)) < 1e-9
    assert largest(errors(case.run(backend, torch.float32), exact)) < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_undone_writes_stay_exact_over_a_thousand_steps(backend: str, write_rule: str) -> None:
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        hidden_size=16,
        key_size=12,
        value_size=12,
        memory_widths=(12,),
    )
    case = Case(config, steps=1000, batch=2, with_resets=False, seed=2)
    exact = plain(case, torch.float64)
    usual = errors(plain(case, torch.float32), exact)
    found = errors(case.run(backend, torch.float32), exact)
    assert largest(found) < 1e-5 + 5 * max(usual.values())
    # Of all gradients, that of the first memory has come through the most undone writes.
    assert found["d memory"] < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("every", [1, 7, 20, "auto"])
def test_snapshots_change_no_result(backend: str, every: int) -> None:
    config = MNMConfig(
        hidden_size=9,
        key_size=7,
        value_size=5,
        memory_widths=(6,),
        heads=2,
        recall_weights=(1.0, 0.5),
        snapshot_every=every,
    )
    case = Case(config, steps=20, batch=3, with_resets=True, seed=3)
    without = Case(dataclasses.replace(config, snapshot_every=None), case.steps, case.batch, True, case.seed)
    found = errors(case.run(backend, torch.float64), without.run(backend, torch.float64))
    assert largest(found) < 1e-12


@given(st.integers(1, 3000), st.floats(0.01, 100))
def test_automatic_segments_need_the_same_memory_and_no_more_than_equal_ones(
    steps: int, ratio: float
) -> None:
    def needs(lengths: list[int]) -> list[float]:
        return [length + ratio * k for k, length in enumerate(lengths)]

    found = segment_lengths("auto", steps, ratio)
    assert sum(found) == steps
    assert min(found) >= 1
    assert max(needs(found)) <= needs(found)[0] + 2
    equal = min(max(needs(segment_lengths(every, steps, ratio))) for every in range(1, steps + 1))
    assert max(needs(found)) <= equal + ratio + 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("used", ["outputs", "meta_loss", "hidden", "memory", "recent_values"])
def test_a_loss_of_one_result_alone(backend: str, used: str) -> None:
    config = MNMConfig(
        hidden_size=9,
        key_size=7,
        value_size=5,
        memory_widths=(6,),
        recall_weights=(1.0, 0.5),
        kernel=backend,  # pyright: ignore[reportArgumentType]
    )

    def gradients(config: MNMConfig) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        core = MNMCore(INPUTS, config).double()
        output = core(torch.randn(6, 4, INPUTS, dtype=torch.float64), None, torch.rand(6, 4) < 0.2)
        results = {**output.state._asdict(), **output._asdict()}
        return torch.autograd.grad(
            results[used].square().sum(), tuple(core.parameters()), materialize_grads=True
        )

    expected = gradients(dataclasses.replace(config, kernel="reference"))
    torch.testing.assert_close(gradients(config), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_calls_in_a_row_equal_one(backend: str) -> None:
    config = MNMConfig(
        hidden_size=9,
        key_size=7,
        value_size=5,
        memory_widths=(6,),
        recall_weights=(1.0, 0.5, 0.5),
        kernel=backend,  # pyright: ignore[reportArgumentType]
    )
    torch.manual_seed(0)
    core = MNMCore(INPUTS, config).double()
    inputs = torch.randn(12, 4, INPUTS, dtype=torch.float64)
    resets = torch.rand(12, 4) < 0.2
    whole = core(inputs, None, resets)
    first = core(inputs[:5], None, resets[:5])
    second = core(inputs[5:], first.state, resets[5:])
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs]), whole.outputs)
    torch.testing.assert_close(torch.cat([first.meta_loss, second.meta_loss]), whole.meta_loss)
    torch.testing.assert_close(second.state.recent_keys, whole.state.recent_keys)
    expected = torch.autograd.grad(whole.outputs.square().sum(), tuple(core.parameters()), allow_unused=True)
    loss = first.outputs.square().sum() + second.outputs.square().sum()
    found = torch.autograd.grad(loss, tuple(core.parameters()), allow_unused=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_steps_without_gradient_equal_the_plain_loop(backend: str, write_rule: str) -> None:
    def act(kernel: str) -> Tensor:
        torch.manual_seed(0)
        config = MNMConfig(
            write_rule=write_rule,  # pyright: ignore[reportArgumentType]
            hidden_size=9,
            key_size=7,
            value_size=5,
            memory_widths=(6,),
            heads=2,
            recall_weights=(1.0, 0.5),
            kernel=kernel,  # pyright: ignore[reportArgumentType]
        )
        core, state, outputs = MNMCore(INPUTS, config).double(), None, []
        with torch.no_grad():
            for t in range(10):
                resets = torch.rand(5) < 0.2 if t % 2 else None
                output, state = core.step(torch.randn(5, INPUTS, dtype=torch.float64), state, resets)
                outputs.append(output)
        return torch.stack(outputs)

    torch.testing.assert_close(act(backend), act("reference"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaves_its_arguments_alone_and_can_go_back_twice(backend: str) -> None:
    torch.manual_seed(0)
    core = MNMCore(INPUTS, MNMConfig(hidden_size=8, key_size=6, value_size=6, kernel=backend))  # pyright: ignore[reportArgumentType]
    inputs, state = torch.randn(6, 3, INPUTS), core(torch.randn(2, 3, INPUTS)).state
    before = [inputs.clone(), *[field.clone() for field in state]]
    output = core(inputs, state)
    once = torch.autograd.grad(
        output.outputs.sum(), tuple(core.parameters()), retain_graph=True, allow_unused=True
    )
    twice = torch.autograd.grad(output.outputs.sum(), tuple(core.parameters()), allow_unused=True)
    torch.testing.assert_close(twice, once, rtol=0, atol=0)
    torch.testing.assert_close([inputs, *state], before, rtol=0, atol=0)


def test_choice_of_backend() -> None:
    device = torch.device("cpu")
    assert choose("reference", device, torch.float32) == "reference"
    assert choose("torch", device, torch.float32) == "torch"
    assert choose("auto", device, torch.bfloat16) == "torch"
    assert choose("auto", torch.device("meta"), torch.float32) == "torch"
    with pytest.raises(ValueError, match="float32 or float64 on the CPU"):
        choose("cpu", device, torch.float16)
    with pytest.raises(ValueError, match="kernel must be one of"):
        MNMConfig(kernel="fast")  # pyright: ignore[reportArgumentType]
