"""Random problems for the tests of the time loop's backends, and how far results are apart."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mnm_rl.cores.mnm import Interaction, MNMConfig, MNMCore, MNMState

INPUTS = 3
ACTIVATION_ERROR = 5e-7  # bound on the C++ kernel's tanh in float32, tested in test_kernels_cpu.py


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill what torch.empty returns with NaN, so that an entry that is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@st.composite
def configs(draw: st.DrawFn, widest: int = 19, layers: int = 4, most: int = 4) -> MNMConfig:
    """Settings with at most ``layers`` memory layers and ``most`` heads and recall delays."""
    width = st.integers(1, widest)
    return MNMConfig(
        write_rule=draw(st.sampled_from(["local", "gradient"])),
        hidden_size=draw(width),
        output_size=2,
        key_size=draw(width),
        value_size=draw(width),
        memory_widths=tuple(draw(st.lists(width, max_size=layers - 1))),
        heads=draw(st.integers(1, most)),
        rate_per_layer=draw(st.booleans()),
        normalization=draw(st.sampled_from(["squared-norm", "width", "none"])),
        output_activation=draw(st.sampled_from(["identity", "tanh"])),
        recall_weights=tuple(draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=most))),
    )


def _nudge_vectors(core: MNMCore, generator: torch.Generator) -> None:
    exact = core.interaction_vectors

    def nudged(hidden: Tensor) -> Interaction:
        noise = [2 * torch.rand(x.shape, generator=generator).to(x.dtype) - 1 for x in exact(hidden)]
        pairs = zip(exact(hidden), noise, strict=True)
        return Interaction(*[x + ACTIVATION_ERROR * shift for x, shift in pairs])

    core.interaction_vectors = nudged  # pyright: ignore[reportAttributeAccessIssue]


class _RoundedTanh(TorchFunctionMode):
    """Moves every result of tanh at random by up to one unit in its last place."""

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in (torch.tanh, Tensor.tanh):
            return result
        noise = 2 * torch.rand(result.shape, generator=self.generator, dtype=result.dtype) - 1
        return result * (1 + torch.finfo(result.dtype).eps * noise)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem with random parameters, state, inputs and resets, and random weights for the loss."""

    config: MNMConfig
    steps: int
    batch: int
    with_resets: bool
    seed: int
    resets: tuple[tuple[int, ...], ...] | None = None
    """``[T, B]``, instead of random ones."""

    def run(self, kernel: str, dtype: torch.dtype, nudge: int | None = None) -> dict[str, Tensor]:
        """Everything that a backend computes, and the gradients of everything that it depends on.

        ``nudge`` seeds noise of the size of ``ACTIVATION_ERROR`` on the plain loop's interaction vectors.
        """
        core, inputs, state, resets = self._problem(kernel, dtype, nudge)
        output = core(inputs, state, resets)
        results = {"outputs": output.outputs, "meta_loss": output.meta_loss, **output.state._asdict()}
        loss = torch.stack([(x * torch.randn(x.shape).to(x)).sum() for x in results.values()]).sum()
        named = {**dict(core.named_parameters()), "inputs": inputs, **state._asdict()}
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for (name, tensor), gradient in zip(named.items(), gradients, strict=True):
            results[f"d {name}"] = torch.zeros_like(tensor) if gradient is None else gradient
        return {name: value.detach().cpu() for name, value in results.items()}

    def growth(self) -> float:
        """The largest norm of all writes of a layer since its initial memory, whose entries are about 1."""
        core, inputs, state, resets = self._problem("reference", torch.float64)
        trace = core(inputs, state, resets, record=True).trace
        assert trace is not None
        return trace["memory_distances"].max().item()

    def _problem(
        self, kernel: str, dtype: torch.dtype, nudge: int | None = None
    ) -> tuple[MNMCore, Tensor, MNMState, Tensor | None]:
        torch.manual_seed(self.seed)
        device = "cuda" if kernel in ("triton", "graphs") and torch.cuda.is_available() else "cpu"
        core = MNMCore(INPUTS, dataclasses.replace(self.config, kernel=kernel)).to(device, dtype)
        if nudge is not None:
            _nudge_vectors(core, torch.Generator().manual_seed(nudge))
        inputs = torch.randn(self.steps, self.batch, INPUTS).to(device, dtype).requires_grad_()
        initial = core.initial_state(self.batch)
        state = MNMState(*[(x + 0.1 * torch.randn(x.shape).to(x)).requires_grad_() for x in initial])
        return core, inputs, state, self._draw_resets(device)

    def _draw_resets(self, device: str) -> Tensor | None:
        if self.resets is not None:
            return torch.tensor(self.resets, dtype=torch.bool, device=device)
        return (torch.rand(self.steps, self.batch) < 0.2).to(device) if self.with_resets else None


@functools.cache
def plain(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """The plain loop's results, computed once for all backends."""
    return case.run("reference", dtype)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    config = draw(configs())
    # Writes that are not normalised let the memory grow without bound: chaos after a few steps.
    steps = draw(st.integers(1, 3 if config.normalization == "none" else 20))
    return Case(config, steps, draw(st.integers(1, 40)), draw(st.booleans()), draw(st.integers(0, 10**6)))


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """RMS(found - expected) / RMS(expected) for each tensor that is not empty."""
    assert found.keys() == expected.keys()
    result = {}
    for name, value in expected.items():
        assert found[name].shape == value.shape
        if value.numel():
            difference = (found[name].to(value.dtype) - value).norm()
            result[name] = (difference / value.norm().clamp(min=1e-12)).item()
    return result


def largest(found: dict[str, float]) -> float:
    """The largest error; not a number if any is not, which ``max`` alone may hide."""
    return sum(found.values()) if any(error != error for error in found.values()) else max(found.values())


def beyond_rounding(found: dict[str, Tensor], case: Case, limit: float = 1e-9) -> dict[str, float]:
    """Those float64 results that differ from the plain loop's by ``limit`` and more than rounding explains.

    Where a memory diverges, ``limit`` alone asks for digits that are not there: of some cases the plain loop
    itself makes a hundredth out of another rounding of tanh.
    """
    wrong = {k: error for k, error in errors(found, plain(case, torch.float64)).items() if not error < limit}
    if wrong:
        limit += 10 * (amplified_rounding(case) + _rounding_of_undone_writes(case))
    return {name: error for name, error in wrong.items() if not error < limit}


def amplified_rounding(case: Case) -> float:
    """The largest error that the plain loop in float64 makes of one unit in the last place of each tanh."""
    exact, found = plain(case, torch.float64), []
    for seed in range(3):
        with _RoundedTanh(seed):
            found.append(largest(errors(case.run("reference", torch.float64), exact)))
    return max(found)


def _rounding_of_undone_writes(case: Case) -> float:
    """Error of an early memory when it is rebuilt from the largest one, in float64.

    Undoing a write leaves a rounding error of the size of the memory after it.
    """
    return torch.finfo(torch.float64).eps * case.growth()
