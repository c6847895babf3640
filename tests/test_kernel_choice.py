"""Kernels run only what they compute: a core that was changed runs the plain loop, or is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from mnm_rl.cores.mnm import Interaction, MNMConfig, MNMCore, MNMState
from mnm_rl.kernels import RULES_OF_KERNELS, choose
from mnm_rl.memory import writes

INPUTS, STEPS, BATCH = 3, 5, 2
CPU = torch.device("cpu")


class Unwritten(MNMCore):
    """A rule of one's own in one file: nothing is ever written."""

    def write(self, weights: Sequence[Tensor], vectors: Interaction) -> list[Tensor]:
        return list(weights)


class OnlyValues(MNMCore):
    def predicted_activations(self, values: Tensor) -> list[Tensor]:
        return [torch.ones_like(target) for target in super().predicted_activations(values)]


class ReadsWhatItWrites(MNMCore):
    def interaction_vectors(self, hidden: Tensor) -> Interaction:
        vectors = super().interaction_vectors(hidden)
        return vectors._replace(read_keys=vectors.write_keys)


class StartsAtOne(MNMCore):
    def initial_state(self, batch_size: int) -> MNMState:
        state = super().initial_state(batch_size)
        return state._replace(hidden=torch.ones_like(state.hidden))


class LoudLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def make(kernel: str = "auto", kind: type[MNMCore] = MNMCore, **settings: Any) -> MNMCore:
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(hidden_size=6, key_size=4, value_size=3, memory_widths=(5,))
    config = MNMConfig(**sizes, kernel=kernel, **settings)  # pyright: ignore[reportArgumentType]
    return kind(INPUTS, config).double()


def draw(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, BATCH, INPUTS, generator=generator, dtype=torch.float64)


def some_resets() -> Tensor:
    resets = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    resets[2, 1] = True
    return resets


def results(core: MNMCore) -> list[Tensor]:
    """Outputs, state, and gradients of all parameters."""
    output = core(draw(), None, some_resets())
    loss = output.outputs.square().sum() + output.meta_loss.sum()
    gradients = torch.autograd.grad(loss, list(core.parameters()), allow_unused=True)
    return [output.outputs, output.meta_loss, *output.state, *[g for g in gradients if g is not None]]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", [Unwritten, OnlyValues, ReadsWhatItWrites, StartsAtOne])
def test_an_overridden_method_is_run(kind: type[MNMCore]) -> None:
    expected = results(make("reference", kind))
    assert not torch.allclose(expected[0], results(make("reference"))[0])
    assert same(results(make("auto", kind)), expected)
    for kernel in RULES_OF_KERNELS:
        with pytest.raises(
            ValueError, match=rf"^The {kernel} kernel cannot run this core, because its method"
        ):
            make(kernel, kind)(draw())


def test_a_method_set_on_an_instance_is_run() -> None:
    core = make()
    core.write = lambda weights, vectors: list(weights)  # pyright: ignore[reportAttributeAccessIssue]
    assert same(results(core), results(make("reference", Unwritten)))
    core = make("torch")
    core.write = lambda weights, vectors: list(weights)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        ValueError,
        match=r"^The torch kernel cannot run this core, because its method write is overridden; "
        r"take kernel='reference' or kernel='auto'\.$",
    ):
        core(draw())


def test_a_subclass_that_changes_no_step_still_runs_a_kernel() -> None:
    class Renamed(MNMCore):
        colour = "blue"

        def extra(self) -> int:
            return 1

    assert same(results(make("torch", Renamed)), results(make("torch")))


def _old_weight_norm(core: MNMCore) -> None:
    torch.nn.utils.weight_norm(core.rate)


def _hooked_spectral_norm(core: MNMCore) -> None:
    hooked_spectral_norm(core.interaction)


def _spectral_norm(core: MNMCore) -> None:
    parametrizations.spectral_norm(core.interaction)


def _weight_norm(core: MNMCore) -> None:
    parametrizations.weight_norm(core.feedback)


def _other_class(core: MNMCore) -> None:
    core.rate = LoudLinear(4, 1).double()


def _no_bias(core: MNMCore) -> None:
    core.interaction = nn.Linear(6, core.interaction.out_features, bias=False).double()


def _own_forward(core: MNMCore) -> None:
    exact = core.feedback.forward
    core.feedback.forward = lambda input: exact(input).tanh()  # pyright: ignore[reportAttributeAccessIssue]


def _forward_hook(core: MNMCore) -> None:
    def halve(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output / 2

    core.interaction.register_forward_hook(halve)


def _forward_pre_hook(core: MNMCore) -> None:
    core.controller.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 2, inputs[1]))


def _backward_hook(core: MNMCore) -> None:
    core.rate.register_full_backward_hook(lambda module, before, after: (2 * before[0],))


def _backward_pre_hook(core: MNMCore) -> None:
    core.feedback.register_full_backward_pre_hook(lambda module, after: (2 * after[0],))


CHANGES = [
    _old_weight_norm,
    _hooked_spectral_norm,
    _spectral_norm,
    _weight_norm,
    _other_class,
    _no_bias,
    _own_forward,
    _forward_hook,
    _forward_pre_hook,
    _backward_hook,
    _backward_pre_hook,
]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_module_is_run(change: Callable[[MNMCore], None]) -> None:
    def changed(kernel: str) -> MNMCore:
        core = make(kernel)
        change(core)
        return core

    assert same(results(changed("auto")), results(changed("reference")))
    for kernel in RULES_OF_KERNELS:
        with pytest.raises(
            ValueError, match=rf"^The {kernel} kernel cannot run this core, because its module"
        ):
            changed(kernel)(draw())


@pytest.mark.parametrize("change", [_spectral_norm, _hooked_spectral_norm])
def test_training_with_spectral_norm_trains_the_weights_behind_it(change: Callable[[MNMCore], None]) -> None:
    trained = []
    for kernel in ("auto", "reference"):
        core = make(kernel)
        change(core)
        before = copy.deepcopy(core.state_dict())
        optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
        for seed in range(3):
            optimizer.zero_grad()
            core(draw(seed)).outputs.square().sum().backward()
            optimizer.step()
        name = "interaction.weight_orig"
        name = name if name in before else "interaction.parametrizations.weight.original"
        assert not torch.allclose(core.state_dict()[name], before[name])
        trained.append(list(core.parameters()))
    assert same(*trained)


def test_a_hook_is_called_at_every_step_until_it_is_removed() -> None:
    core, calls = make(), []
    expected = core(draw()).outputs
    handle = core.interaction.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(core(draw()).outputs, expected)
    assert len(calls) == STEPS
    handle.remove()
    assert torch.equal(core(draw()).outputs, expected)
    assert len(calls) == STEPS


def test_snapshots_need_a_kernel() -> None:
    core = make("auto", Unwritten, snapshot_every=2)
    with pytest.raises(
        ValueError,
        match=r"^snapshot_every must be left out with this core, because its method write is overridden\.$",
    ):
        core(draw())


@pytest.fixture
def slow_rule(monkeypatch: pytest.MonkeyPatch) -> str:
    """A rule that no kernel has."""
    exact = writes.WRITE_RULES["gradient"].write
    rule = writes.WriteRule(lambda weights, given: exact(weights, given._replace(rates=given.rates / 2)))
    monkeypatch.setitem(writes.WRITE_RULES, "slow", rule)
    return "slow"


def test_a_rule_that_was_replaced_runs_the_plain_loop(
    slow_rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(writes.WRITE_RULES, "gradient", writes.WRITE_RULES[slow_rule])
    rule: dict[str, Any] = {"write_rule": "gradient"}
    assert same(results(make("auto", **rule)), results(make("reference", **rule)))
    with pytest.raises(ValueError, match="because its write rule 'gradient' has been replaced"):
        make("torch", **rule)(draw())


def test_a_rule_that_no_kernel_has_runs_the_plain_loop(slow_rule: str) -> None:
    expected = results(make("reference", write_rule=slow_rule))
    assert same(results(make("auto", write_rule=slow_rule)), expected)
    assert not torch.allclose(expected[0], results(make("reference", write_rule="gradient"))[0])
    for kernel in RULES_OF_KERNELS:
        with pytest.raises(
            ValueError,
            match=rf"^The {kernel} kernel has no write rule 'slow', only gradient, local; "
            r"kernels that have it: reference\.$",
        ):
            make(kernel, write_rule=slow_rule)(draw())
    with pytest.raises(ValueError, match="because no kernel has the write rule 'slow' here"):
        make(write_rule=slow_rule, snapshot_every=2)(draw())


def test_auto_takes_a_kernel_that_has_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES_OF_KERNELS, "cpu", frozenset({"local"}))
    assert choose("auto", CPU, torch.float32, "gradient") == "torch"
    with pytest.raises(ValueError, match="only local; kernels that have it: reference, torch, triton"):
        choose("cpu", CPU, torch.float32, "gradient")
    monkeypatch.setitem(RULES_OF_KERNELS, "torch", frozenset())
    assert choose("auto", CPU, torch.float32, "gradient") == "reference"


def test_unknown_write_rules_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"write_rule must be one of local, gradient.*, got 'hebbian'"):
        MNMConfig(write_rule="hebbian")
