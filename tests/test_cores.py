"""One contract for every core, and its checks: that each of them finds a core that breaks the promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_core import ToyConfig, ToyCore, ToyState

from mnm_rl.cores import (
    CoreOutput,
    EncodedCore,
    LSTMCore,
    MemoryCore,
    PairedCore,
    StackedCore,
    core_config,
    core_names,
    detach_state,
    find_core,
    make_core,
    make_layers,
)
from mnm_rl.cores.recurrent import LSTMConfig
from mnm_rl.testing import PROMISES, check_core, check_cut, check_resets

INPUT_SIZE = 4
SLOTS = dict(hidden_size=5, slots=6, slot_size=3, read_heads=2)
SMALL: dict[str, dict] = {
    "mnm-p": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5,), heads=2, recall_weights=(1.0, 0.5)
    ),
    "mnm-g": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5, 3), heads=2, rate_per_layer=True
    ),
    "mnm-p-gated": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5,), heads=2, recall_weights=(1.0, 0.5)
    ),
    "lstm": dict(hidden_size=5),
    "gru": dict(hidden_size=5),
    "lstm-salu": dict(hidden_size=5, key_size=3, value_size=4, heads=2),
    "plastic": dict(hidden_size=5),
    "plastic-homogenous": dict(hidden_size=5),
    "fwm": dict(hidden_size=5, entity_size=3, relation_size=4, reads=2),
    "delta-net": dict(hidden_size=5, heads=2, key_size=3, value_size=4, forgetting="channel"),
    "fast-weights": dict(hidden_size=5),
    "ntm": dict(hidden_size=5, slots=6, slot_size=3, heads=2),
    "tpr-rnn": dict(hidden_size=5, entity_size=4, role_size=3),
    "entnet": dict(hidden_size=5, slots=3),
    "sdnc": dict(SLOTS, sparse_reads=6, sparse_links=6, link_gradient=True),
    "sam": dict(SLOTS, sparse_reads=2),
    # With their default settings, gradients stop on some ways on purpose, and are not those of differences.
    "dnc": dict(SLOTS, usage_gradient=True),
}
every_core = pytest.mark.parametrize("name", core_names())
every_promise = pytest.mark.parametrize("promise", PROMISES)


def small_core(name: str, seed: int = 0) -> MemoryCore:
    torch.manual_seed(seed)
    return make_core(name, INPUT_SIZE, **SMALL[name]).double()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_core
@every_promise
def test_every_core_keeps_every_promise(name, promise):
    check_core(name, only=[promise], **SMALL[name])


@pytest.mark.parametrize("kernel", ["reference", "torch"])
@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
def test_every_kernel_keeps_every_promise(name, kernel):
    check_core(name, **SMALL[name], kernel=kernel)


@every_core
@settings(deadline=None, max_examples=15)
@given(cut=st.integers(1, 6), resets=st.lists(st.booleans(), min_size=21, max_size=21))
def test_state_carries_everything_across_a_cut(name, cut, resets):
    check_cut(small_core(name), draw(7, 3, INPUT_SIZE), cut, torch.tensor(resets).view(7, 3))


@every_core
@settings(deadline=None, max_examples=15)
@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_a_reset_is_the_start_of_a_separate_sequence(name, resets):
    check_resets(small_core(name), draw(7, 2, INPUT_SIZE), torch.tensor(resets).view(7, 2))


@every_core
def test_gradients_reach_every_input_where_there_is_no_reset(name):
    core, inputs = small_core(name), draw(4, 2, INPUT_SIZE).requires_grad_()
    resets = torch.zeros(4, 2, dtype=torch.bool)
    resets[2, 0] = True
    gradient = torch.autograd.grad(core(inputs, None, resets).outputs[2:].sum(), inputs)[0]
    assert torch.equal(gradient[:2, 0], torch.zeros(2, INPUT_SIZE, dtype=torch.float64))
    assert gradient[:2, 1].abs().min() > 0


@every_core
def test_a_saved_core_is_the_same_core(name, tmp_path):
    core = small_core(name)
    torch.save(core.state_dict(), tmp_path / "core.pt")
    other = small_core(name, seed=99)
    inputs = draw(5, 2, INPUT_SIZE)
    assert not torch.allclose(core(inputs).outputs, other(inputs).outputs)
    other.load_state_dict(torch.load(tmp_path / "core.pt"))
    assert torch.equal(core(inputs).outputs, other(inputs).outputs)


@every_core
def test_a_detached_state_cuts_the_graph(name):
    core = small_core(name)
    state = core(draw(3, 2, INPUT_SIZE)).state
    assert any(field.requires_grad for field in state)
    assert not any(field.requires_grad for field in detach_state(state))


@every_core
def test_bad_input_is_named(name):
    core = small_core(name)
    with pytest.raises(ValueError, match=r"takes inputs of shape \[T, B, 4\]"):
        core(draw(3, 2, 5))
    with pytest.raises(ValueError, match=r"resets must be boolean of shape \[3, 2\]"):
        core(draw(3, 2, 4), None, torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"no setting colour; its settings: .*hidden_size"):
        make_core(name, 4, colour=1)
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        make_core(name, 4, hidden_size=0)


@every_core
def test_a_class_refuses_what_its_name_refuses(name):
    core_class = find_core(name)[0]
    config = core_class.config_class.__name__
    for size in (-1, 2.5, "3", True, None):
        with pytest.raises(ValueError, match=r"^input_size must be a whole number that is not negative, got"):
            core_class(size)
    for wrong in ({"hidden_size": 3}, 3, ToyConfig()):
        message = f"^The config of {core_class.__name__} must be a {config} or None, got"
        with pytest.raises(TypeError, match=message):
            core_class(3, wrong)


@pytest.mark.parametrize(
    "config_class", dict.fromkeys(find_core(name)[0].config_class for name in core_names())
)
def test_settings_of_other_types_are_named_by_the_config_itself(config_class):
    for field in dataclasses.fields(config_class):
        for wrong in ({}, b"5", float("nan")):
            with pytest.raises((TypeError, ValueError), match=rf"^{field.name} must be .* got .*\.$"):
                config_class(**{field.name: wrong})
    with pytest.raises(TypeError, match=r"^hidden_size must be a whole number, got '5'\.$"):
        config_class(hidden_size="5")


def test_a_subclass_may_have_a_config_of_its_own_and_give_its_parent_another():
    class Wide(LSTMCore):
        config_class = ToyConfig

        def __init__(self, input_size: int, config: ToyConfig | None = None):
            own = config or ToyConfig()
            super().__init__(input_size, LSTMConfig(hidden_size=own.width))

    assert Wide(3, ToyConfig(7)).output_size == 7


def test_cores_are_made_of_cores():
    core = make_core("lstm", 4, hidden_size=4)
    for call in (
        lambda: StackedCore([core, nn.Linear(4, 4)]),  # pyright: ignore[reportArgumentType]
        lambda: PairedCore(core, "lstm"),  # pyright: ignore[reportArgumentType]
        lambda: EncodedCore(nn.Identity(), nn.Linear(4, 4), 4),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(TypeError, match=r"^Cores are made of cores, got"):
            call()
    with pytest.raises(ValueError, match=r"^input_size must be"):
        EncodedCore(nn.Identity(), core, -1)
    with pytest.raises(ValueError, match=r"^layers must be at least 1, got 0"):
        make_layers("lstm", 4, 0)


def test_unknown_core_is_named_with_the_known_ones():
    known = ", ".join(core_names())
    assert known.startswith("mnm-p, mnm-g, mnm-p-gated, lstm, lstm-salu, gru, plastic, plastic-homogenous")
    with pytest.raises(ValueError, match=rf"Unknown core 'elman'; known cores: {known}\."):
        make_core("elman", 4)
    with pytest.raises(TypeError, match="no setting write_rule"):
        core_config("mnm-p", write_rule="gradient")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"memory_widths": (3, 0)}, "memory_widths must be all at least 1"),
        ({"normalization": "l2"}, "normalization must be one of squared-norm, width, none, got 'l2'"),
        ({"output_activation": "relu"}, "output_activation must be one of identity, tanh"),
        ({"recall_weights": ()}, "recall_weights must be at least one number"),
        ({"recall_weights": (1.0, -1.0)}, "recall_weights must be finite numbers that are not negative"),
        ({"recall_weights": (float("nan"),)}, "recall_weights must be finite numbers"),
    ],
)
def test_mnm_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        make_core("mnm-p", 4, **setting)


# What follows are cores that break one promise each, with the part of the message that says how.


class MetaLossOfAnotherShape(ToyCore):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        return output._replace(meta_loss=output.meta_loss.unsqueeze(2))


class AlwaysATrace(ToyCore):
    def forward(self, *args: Any, record: bool = False, **kwargs: Any) -> Any:
        return super().forward(*args, record=True, **kwargs)


class AnotherTrace(ToyCore):
    trace_names = ("cell",)


class MetaLossInFloat32(ToyCore):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        return output._replace(meta_loss=output.meta_loss.float())


class StateStaysOnTheCPU(ToyCore):
    def initial_state(self, batch_size: int) -> ToyState:
        return ToyState(torch.zeros(batch_size, self.output_size, dtype=self.layer.weight.dtype))


class WritesIntoItsState(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        output = super().forward(inputs, state, resets, record=record)
        if state is not None and not state.hidden.requires_grad:
            state.hidden.add_(1)
        return output


class DrawsAtRandom(ToyCore):
    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return super().advance(x + torch.rand_like(x), state)


class AnotherStep(ToyCore):
    def step(self, inputs: Tensor, state: Any = None, resets: Any = None) -> Any:
        return super().step(2 * inputs, state, resets)


class ForgetsWhileActing(ToyCore):
    hurried: bool = False

    @contextmanager
    def acting(self) -> Iterator[None]:
        self.hurried = True
        yield
        self.hurried = False

    def step(self, inputs: Tensor, state: Any = None, resets: Any = None) -> Any:
        return super().step(inputs, None if self.hurried else state, resets)


class CountsStepsOutsideOfItsState(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        self.count = 0
        return super().forward(inputs, state, resets, record=record)

    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        self.count += 1
        return super().advance(x * self.count, state)


class CutsGradients(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        return super().forward(inputs, None if state is None else detach_state(state), resets, record=record)


class KeepsAGraphBesideItsState(ToyCore):
    past: Tensor | None = None

    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        if state is not None and self.past is not None:
            state = ToyState(state.hidden + (self.past - self.past.detach()))
        output = super().forward(inputs, state, resets, record=record)
        self.past = output.state.hidden
        return output


class IgnoresResets(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        return super().forward(inputs, state, None, record=record)


class ResetsKeepTheGraph(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        output = super().forward(inputs, state, resets, record=record)
        first = inputs[0].sum() * torch.linspace(0, 1, len(inputs)).view(-1, 1, 1)
        return output._replace(outputs=output.outputs + (first - first.detach()))


class IgnoresItsPast(ToyCore):
    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return super().advance(x, ToyState(0 * state.hidden))


class MixesExamples(ToyCore):
    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return super().advance(x + 0.01 * x.mean(0), state)


class IgnoresInputs(ToyCore):
    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return super().advance(0 * x, state)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 3 * gradient


class WrongGradients(ToyCore):
    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return super().advance(WrongGradient.apply(x), state)  # pyright: ignore[reportArgumentType]


class HasRandomNumbersThatAreNotSaved(ToyCore):
    start: Tensor

    def __init__(self, input_size: int, config: Any = None):
        super().__init__(input_size, config)
        self.register_buffer("start", torch.rand(self.output_size), persistent=False)

    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return ToyState(super().advance(x, state).hidden + self.start)


class TakesAnything(ToyCore):
    def _check_arguments(self, *args: Any) -> None:
        pass


class MultipliesByZero(ToyCore):
    def forward(self, inputs: Tensor, state: Any = None, resets: Any = None, *, record: bool = False) -> Any:
        state = self.initial_state(inputs.shape[1]) if state is None else state
        outputs = []
        for t, x in enumerate(inputs):
            if resets is not None:
                state = ToyState(state.hidden * ~resets[t][:, None])
            state = self.advance(x, state)
            outputs.append(state.hidden)
        stacked = torch.stack(outputs)
        return CoreOutput(stacked, state, stacked.new_zeros(stacked.shape[:2]), None)


class ActsForOthers(ToyCore):
    busy = False

    @contextmanager
    def acting(self) -> Iterator[None]:
        ActsForOthers.busy = True
        try:
            yield
        finally:
            ActsForOthers.busy = False

    def step(self, inputs: Tensor, state: Any = None, resets: Any = None) -> Any:
        outputs, after = super().step(inputs, state, resets)
        return outputs, ToyState(state.hidden.copy_(after.hidden)) if self.busy and state else after


class Fails(ToyCore):
    def step(self, inputs: Tensor, state: Any = None, resets: Any = None) -> Any:
        raise KeyError("no such step")


@pytest.mark.parametrize(
    ("core", "promise", "message"),
    [
        (MetaLossOfAnotherShape, "shapes", r"the shape of the meta loss is \[7, 3, 1\] instead of \[7, 3\]"),
        (AlwaysATrace, "traces", "there is one although nobody asked"),
        (AnotherTrace, "traces", r"it holds \['hidden'\], and trace_names \['cell'\]"),
        (MetaLossInFloat32, "dtypes", "in a core of torch.float64, the meta loss is torch.float32"),
        (StateStaysOnTheCPU, "devices", "hidden stays on cpu"),
        (WritesIntoItsState, "repeats", "the outputs the second time differ"),
        (DrawsAtRandom, "repeats", "the outputs the second time differ by up to"),
        (AnotherStep, "steps", "the outputs of steps differ by up to"),
        (ForgetsWhileActing, "acting", "the outputs of step 1 differ by up to"),
        (ActsForOthers, "acting alone", "the second step from a state differ by up to"),
        (MultipliesByZero, "resets after a fault", "the outputs after a reset differ"),
        (CountsStepsOutsideOfItsState, "state goes on", "the outputs cut at step 1 differ"),
        (CutsGradients, "state goes on", "gradients of layer.weight cut at step 1 differ"),
        (KeepsAGraphBesideItsState, "detaching", "some does"),
        (IgnoresResets, "resets", "the outputs of sequences with resets differ"),
        (ResetsKeepTheGraph, "resets cut gradients", "some flows across"),
        (IgnoresItsPast, "resets cut gradients", "none flows where no reset is"),
        (MixesExamples, "independence", "the others' outputs differ"),
        (IgnoresInputs, "independence", "an example ignores its inputs"),
        (WrongGradients, "gradients", "GradcheckError"),
        (HasRandomNumbersThatAreNotSaved, "saving", "the outputs of the other differ"),
        (TakesAnything, "refusals", "is accepted|is a RuntimeError"),
        (Fails, "steps", "there was a KeyError: 'no such step'"),
    ],
)
def test_a_core_that_breaks_a_promise_is_found(core, promise, message):
    with pytest.raises(AssertionError, match=rf"{core.__name__} breaks a promise\. [A-Z].*({message})"):
        check_core(core, only=[promise])
    with pytest.raises(AssertionError, match="breaks a promise"):
        check_core(core)


def test_every_promise_has_a_core_that_breaks_it():
    marks = test_a_core_that_breaks_a_promise_is_found.pytestmark  # pyright: ignore
    assert {promise for _, promise, _ in marks[0].args[1]} == set(PROMISES)


def test_somebody_elses_core_keeps_every_promise():
    check_core(ToyCore)
    check_core("toy_core:ToyCore", width=3, input_size=2)
    check_core(lambda: ToyCore(3))


def test_what_cannot_be_checked_is_named():
    with pytest.raises(ValueError, match="no promise honesty; there are shapes, traces"):
        check_core(ToyCore, only=["honesty"])
    with pytest.raises(TypeError, match="takes no settings"):
        check_core(lambda: ToyCore(3), width=3)
    with pytest.raises(TypeError, match="takes no settings and no input_size"):
        check_core(lambda: ToyCore(3), input_size=3)
    with pytest.raises(TypeError, match="no setting hidden_size; its settings: width, decay"):
        check_core(ToyCore, hidden_size=3)


@pytest.mark.parametrize("core", [None, 5, [], ToyCore(3), lambda size: ToyCore(size)])
def test_what_is_neither_a_kind_of_core_nor_builds_one_is_named(core):
    with pytest.raises(TypeError, match="check_core takes a core's class, name or reference, or a function"):
        check_core(core)


def test_a_function_that_builds_something_else_is_named():
    with pytest.raises(TypeError, match="The function must build a core, not return 'x'"):
        check_core(lambda: "x")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("only", ["shapes", 5, [], [["shapes"]]])
def test_promises_are_named_in_a_list(only):
    with pytest.raises((TypeError, ValueError), match=r"^only must|no promise \['shapes'\]"):
        check_core(ToyCore, only=only)


def test_a_check_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_core(ToyCore, only=["shapes"])
    assert torch.equal(torch.rand(2), expected)
