"""The C++ kernel: its build, its activation functions, its threads and its memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnm_rl import kernels, make_core
from mnm_rl.kernels import build, cpu


@pytest.fixture(scope="module")
def operators() -> object:
    try:
        return cpu.operators()
    except build.BuildError:
        pytest.skip("no C++ compiler")


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(name: str, batch: int, of_outputs: bool, steps: int = 20) -> list[Tensor]:
    torch.manual_seed(0)
    core = make_core(name, 4, hidden_size=40, key_size=30, value_size=20, heads=2, kernel="cpu")
    inputs = torch.randn(steps, batch, 4, requires_grad=True)
    output = core(inputs, None, torch.rand(steps, batch) < 0.05)
    seen = output.outputs if of_outputs else torch.cat([output.state.hidden, output.state.read_value], 1)
    (seen.square().mean() + output.meta_loss.mean()).backward()
    gradients = [p.grad for p in (inputs, *core.parameters()) if p.grad is not None]
    return [seen, output.meta_loss, *output.state, *gradients]


@pytest.mark.parametrize("batch", [16, 40, 70])  # threads share a block, or each has blocks of its own
@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
# The product that makes the outputs is torch's own, which may round differently with three threads.
@pytest.mark.parametrize(("threads", "of_outputs"), [(2, True), (3, False)])
@pytest.mark.usefixtures("operators", "threads_as_before")
def test_same_bits_with_any_number_of_threads(name: str, batch: int, threads: int, of_outputs: bool) -> None:
    torch.set_num_threads(1)
    alone = results(name, batch, of_outputs)
    assert len(alone) > 15  # the gradients are there
    torch.set_num_threads(threads)
    for one, several in zip(alone, results(name, batch, of_outputs), strict=True):
        assert torch.equal(one, several)


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
@pytest.mark.usefixtures("operators")
def test_weights_kept_while_acting_follow_every_change(name: str) -> None:
    torch.manual_seed(0)
    core = make_core(name, 4, hidden_size=13, key_size=7, value_size=5, heads=2, kernel="cpu")
    inputs = torch.randn(1, 6, 4)
    with torch.no_grad(), core.acting():
        kept = [core(inputs).outputs]
        for parameter in core.parameters():
            parameter.mul_(1.5)  # against the promise
        kept += [core(inputs).outputs, core(inputs).outputs]
    assert not torch.allclose(kept[0], kept[1])
    torch.testing.assert_close(kept[1], core(inputs).outputs)
    torch.testing.assert_close(kept[1], kept[2], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
@pytest.mark.usefixtures("operators")
def test_acting_overwrites_only_what_a_step_has_returned(name: str) -> None:
    torch.manual_seed(0)
    core = make_core(name, 4, hidden_size=13, key_size=7, value_size=5, heads=2, kernel="cpu")
    inputs, resets = torch.randn(5, 6, 4), torch.rand(5, 6) < 0.3
    with torch.no_grad():
        expected = core(inputs, resets=resets)
        state = core.step(inputs[0], resets=resets[0])[1]
        start = [field.clone() for field in state]
        with core.acting():
            outputs, second = core.step(inputs[1], state, resets[1])
            memory = second.memory
            steps = [outputs]
            for t in (2, 3, 4):
                outputs, second = core.step(inputs[t], second, resets[t])
                steps.append(outputs)
    assert second.memory is memory
    assert all(torch.equal(old, new) for old, new in zip(start, state, strict=True))
    torch.testing.assert_close(torch.stack(steps), expected.outputs[1:])
    for found, wanted in zip(second, expected.state, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("is_logistic", "exact"), [(False, torch.tanh), (True, torch.sigmoid)])
def test_error_of_the_activation_functions(operators: object, is_logistic: bool, exact: object) -> None:
    wide = torch.linspace(-100, 100, 400_001)
    near = torch.linspace(-10, 10, 400_001)
    tiny = torch.logspace(-30, 0, 10_001)
    values = torch.cat([wide, near, tiny, -tiny, torch.tensor([torch.inf, -torch.inf, 0.0])])
    found = operators.activation(values, is_logistic)  # pyright: ignore[reportAttributeAccessIssue]
    expected = exact(values.double())  # pyright: ignore[reportCallIssue]
    assert (found - expected).abs().max() < 5e-7
    assert found.abs().max() <= 1
    if is_logistic:
        low = (values > -80) & (values < 0)
        assert (found[low].double() / expected[low] - 1).abs().max() < 5e-7
    else:
        small = values.abs().clamp(min=1e-30) < 1
        ratio = found[small].double() / expected[small].where(expected[small] != 0, 1)
        assert (ratio - 1)[expected[small] != 0].abs().max() < 5e-7
    assert operators.activation(torch.full((5,), torch.nan), is_logistic).isnan().all()  # pyright: ignore


@pytest.mark.usefixtures("operators")
def test_memory_does_not_grow_over_a_thousand_calls() -> None:
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("no /proc")
    core = make_core(
        "mnm-p", 4, hidden_size=16, key_size=16, value_size=16, memory_widths=(32,), kernel="cpu"
    )
    inputs = torch.randn(8, 8, 4)

    def resident() -> float:
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def call(times: int) -> None:
        for _ in range(times):
            core(inputs).outputs.sum().backward()
            with torch.no_grad():
                core(inputs[:1])

    call(200)
    before = resident()
    call(1000)
    assert resident() - before < 4


def test_without_a_compiler_one_warning_and_the_torch_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise build.BuildError("no C++ compiler\nand more")

    monkeypatch.setattr(cpu, "operators", fail)
    kernels._compiles.cache_clear()
    try:
        with pytest.warns(
            UserWarning, match="backend instead of the C\\+\\+ kernel: no C\\+\\+ compiler \\(mnm-rl info"
        ):
            assert kernels.choose("auto", torch.device("cpu"), torch.float32) == "torch"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kernels.choose("auto", torch.device("cpu"), torch.float32) == "torch"
        with pytest.raises(build.BuildError):
            kernels.choose("cpu", torch.device("cpu"), torch.float32)
    finally:
        kernels._compiles.cache_clear()


def test_a_missing_or_failing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MNM_RL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.load_library()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(build.BuildError, match=r"scan\.cpp"):
        build.load_library()
    assert list(tmp_path.iterdir()) == []
