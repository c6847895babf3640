"""What every core promises, as checks that anybody can run on a core of their own.

    from mnm_rl.testing import check_core

    check_core(MyCore, hidden_size=5)

Small sizes are enough and quick. All runs on the CPU, in double precision, with parameters and inputs drawn
at random from fixed seeds.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``O`` output size.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mnm_rl.cores import CoreChoice, CoreOutput, MemoryCore, core_name, detach_state, make_core

Make = Callable[[int], MemoryCore]
"""Builds a core in double precision, with parameters from a seed."""

STEPS, BATCH, INPUT_SIZE = 7, 3, 4
TOLERANCE = 1e-7


def check_core(
    core: CoreChoice | Callable[[], MemoryCore],
    *,
    only: Iterable[str] | None = None,
    input_size: int | None = None,
    **settings: Any,
) -> None:
    """Hold a core to all that :class:`mnm_rl.cores.MemoryCore` promises.

    Args:
        core: a class, name or reference, or a function without arguments that builds a core.
        only: names of :data:`PROMISES`; all of them if not given.
        input_size: ``I``, 4 if not given; not for a function.
        settings: of the core, small ones; not for a function.

    Raises:
        AssertionError: a promise is broken; the message says which, and how.
        ValueError: unknown promise, or none at all.
        TypeError: what was given is not a kind of core and builds none, settings were given for a function,
            or for a core that does not have them.
    """
    names = _promises(only)
    make = _maker(core, input_size, settings)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        title = core_name(make(0))
        for name in names:
            _check_promise(title, PROMISES[name], make)


def _promises(only: Iterable[str] | None) -> list[str]:
    if only is None:
        return list(PROMISES)
    if isinstance(only, str) or not isinstance(only, Iterable):
        raise TypeError(f"only must be a list of names of promises, got {only!r}.")
    names = list(only)
    if unknown := [str(name) for name in names if name not in list(PROMISES)]:
        raise ValueError(f"There is no promise {', '.join(unknown)}; there are {', '.join(PROMISES)}.")
    if not names:
        raise ValueError(f"only must name a promise at least; there are {', '.join(PROMISES)}.")
    return names


def _maker(
    core: CoreChoice | Callable[[], MemoryCore], input_size: int | None, settings: dict[str, Any]
) -> Make:
    if isinstance(core, str | type):
        size = INPUT_SIZE if input_size is None else input_size
        build: Callable[[], MemoryCore] = functools.partial(make_core, core, size, **settings)
    elif settings or input_size is not None:
        raise TypeError(
            "A function that builds a core takes no settings and no input_size; give them inside of it."
        )
    else:
        _check_function(core)
        build = core

    def make(seed: int) -> MemoryCore:
        torch.manual_seed(seed)
        built = build()
        if not isinstance(built, MemoryCore):
            raise TypeError(f"The function must build a core, not return {built!r}.")
        return built.to("cpu", torch.float64)

    return make


def _check_function(core: object) -> None:
    takes = "a core's class, name or reference, or a function without arguments that builds a core"
    if isinstance(core, MemoryCore) or not callable(core):
        raise TypeError(f"check_core takes {takes}, got {_in_short(core)}.")
    try:
        inspect.signature(core).bind()
    except TypeError as error:
        raise TypeError(f"check_core takes {takes}; {_in_short(core)} has arguments: {error}.") from error
    except ValueError:
        return  # some functions written in C do not say what they take


def _in_short(core: object) -> str:
    return f"a core, {type(core).__name__}" if isinstance(core, MemoryCore) else repr(core)


def _check_promise(title: str, promise: Callable[[Make], None], make: Make) -> None:
    torch.manual_seed(1)
    sentence = (promise.__doc__ or "").strip().splitlines()[0]
    try:
        promise(make)
    except AssertionError as error:
        raise AssertionError(f"{title} breaks a promise. {sentence} But {error}.") from error
    except Exception as error:
        raise AssertionError(
            f"{title} breaks a promise. {sentence} But there was a {type(error).__name__}: {error}"
        ) from error


def _shapes(make: Make) -> None:
    """Outputs are [T, B, O], the meta loss [T, B], the state a NamedTuple of tensors [B, ...]."""
    core = make(0)
    output, initial = core(_inputs(core)), core.initial_state(BATCH)
    _require_shape("the outputs", output.outputs, (STEPS, BATCH, core.output_size))
    _require_shape("the meta loss", output.meta_loss, (STEPS, BATCH))
    _require(isinstance(output, CoreOutput), f"a call returns a {type(output).__name__}, not a CoreOutput")
    _require(hasattr(initial, "_fields"), f"the initial state is a {type(initial).__name__}")
    _require(
        type(output.state) is type(initial), "the state after a call is of another type than the initial"
    )
    for name, field in zip(initial._fields, initial, strict=True):
        _require(isinstance(field, Tensor), f"{name} of the state is no tensor")
        _require_shape(
            f"{name} of the initial state", field[:0], (0, *core.initial_state(1)._asdict()[name].shape[1:])
        )
    for state in (initial, output.state):
        for name, field in zip(state._fields, state, strict=True):
            _require(
                len(field) == BATCH, f"{name} of the state begins with {len(field)} instead of B = {BATCH}"
            )
    step_outputs, state = core.step(_inputs(core)[0])
    _require_shape("the outputs of a step", step_outputs, (BATCH, core.output_size))
    _require(type(state) is type(initial), "the state after a step is of another type than the initial")


def _traces(make: Make) -> None:
    """A trace is there only if asked for, holds what trace_names says, [T, B, ...], and changes nothing."""
    core = make(0)
    inputs = _inputs(core)
    plain, recorded = core(inputs), core(inputs, record=True)
    _require(plain.trace is None, "there is one although nobody asked")
    _require(recorded.trace is not None, "there is none")
    names = set(recorded.trace)
    _require(
        names == set(core.trace_names),
        f"it holds {sorted(names)}, and trace_names {sorted(core.trace_names)}",
    )
    for name, tensor in recorded.trace.items():
        _require(
            tuple(tensor.shape[:2]) == (STEPS, BATCH), f"{name} in it has the shape {list(tensor.shape)}"
        )
    _require_same_output("with a trace", recorded, plain)


def _dtypes(make: Make) -> None:
    """All that a core computes is of its parameters' dtype, float32 or float64."""
    for dtype in (torch.float32, torch.float64):
        core = make(0).to(dtype)
        output = core(_inputs(core).to(dtype), record=True)
        state = zip(output.state._fields, output.state, strict=True)
        initial = zip(output.state._fields, core.initial_state(BATCH), strict=True)
        named = [("the outputs", output.outputs), ("the meta loss", output.meta_loss)]
        for name, tensor in [*named, *state, *initial, *(output.trace or {}).items()]:
            fits = tensor.dtype == dtype or not tensor.is_floating_point()
            _require(fits, f"in a core of {dtype}, {name} is {tensor.dtype}")


def _devices(make: Make) -> None:
    """The initial state is on the device of the parameters."""
    core = copy.deepcopy(make(0)).to("meta")
    try:
        state = core.initial_state(BATCH)
    except (NotImplementedError, RuntimeError):
        return  # it computes, which is not possible on the device "meta"
    for name, field in zip(state._fields, state, strict=True):
        _require(field.device.type == "meta", f"{name} stays on {field.device}")


def _repeats(make: Make) -> None:
    """The same call gives the same again, and changes neither its inputs nor the state it was given."""
    core = make(0)
    inputs, state = _inputs(core), detach_state(core(_inputs(core, seed=3)).state)
    before = [inputs.clone(), *(field.clone() for field in state)]
    first, second = core(inputs, state), core(inputs, state)
    _require_same_output("the second time", second, first, tolerance=0)
    core.step(inputs[0], state)
    for name, now, then in zip(("inputs", *state._fields), (inputs, *state), before, strict=True):
        _require(torch.equal(now, then), f"it changed {name}")


def _steps(make: Make) -> None:
    """Steps one by one give what the sequence gives."""
    core = make(0)
    inputs, resets = _inputs(core), _resets(2)
    expected = core(inputs, None, resets)
    state, outputs = None, []
    for x, reset in zip(inputs, resets, strict=True):
        output, state = core.step(x, state, reset)
        outputs.append(output)
    _require_same("the outputs of steps", torch.stack(outputs), expected.outputs)
    _require_same_state("after steps", state, expected.state)


def _acting(make: Make) -> None:
    """Inside acting(), steps give what they give outside, quick ones, too."""
    core = make(0)
    inputs, resets = _inputs(core), _resets(2)
    with torch.no_grad():
        expected = core(inputs, None, resets)
        with core.acting():
            state: Any = core.initial_state(BATCH)
            for t, x in enumerate(inputs):
                output, state = core.step(x, state, resets[t] if resets[t].any() else None)
                _require_same(f"the outputs of step {t}", output, expected.outputs[t])
        _require_same_state("after acting", state, expected.state)
        with core.acting():
            quick_step, state = core.quick_step(), core.initial_state(BATCH)
            if quick_step is None:
                return
            for t, x in enumerate(inputs):
                output, state = quick_step(x, state, resets[t] if resets[t].any() else None)
                _require_same(f"the outputs of quick step {t}", output, expected.outputs[t])
        _require_same_state("after quick steps", state, expected.state)


def _state_goes_on(make: Make) -> None:
    """A sequence cut in two gives what the whole gives, with the state handed on, gradients too."""
    core = make(0)
    for cut in range(1, STEPS):
        check_cut(core, _inputs(core), cut, _resets(cut))


def check_cut(core: MemoryCore, inputs: Tensor, cut: int, resets: Tensor) -> None:
    """Make sure that a sequence may be cut in two.

    Args:
        core: in double precision.
        inputs: ``[T, B, I]``.
        cut: where the second part begins.
        resets: boolean ``[T, B]``.

    Raises:
        AssertionError: the parts give something else than the whole.
    """
    whole = core(inputs, None, resets)
    first = core(inputs[:cut], None, resets[:cut])
    second = core(inputs[cut:], first.state, resets[cut:])
    joined = whole._replace(
        outputs=torch.cat([first.outputs, second.outputs]),
        meta_loss=torch.cat([first.meta_loss, second.meta_loss]),
        state=second.state,
    )
    _require_same_output(f"cut at step {cut}", joined, whole)
    _require_same_gradients(f"cut at step {cut}", core, joined, whole)


def _detaching(make: Make) -> None:
    """After detach_state, numbers stay the same and no gradient flows back across."""
    core = make(0)
    inputs = _inputs(core).requires_grad_()
    first = core(inputs[:3])
    _require(any(field.requires_grad for field in first.state), "the state carries no gradient before either")
    state = detach_state(first.state)
    second = core(inputs[3:], state)
    _require_same_output("detached", second, core(inputs[3:], first.state))
    gradient = torch.autograd.grad(_loss(second), inputs)[0]
    _require(not gradient[:3].any(), "some does")


def _resets_restart(make: Make) -> None:
    """A reset is the start of a separate sequence, in its values and its gradients."""
    core = make(0)
    patterns = [_resets(seed) for seed in range(4)]
    for resets in (*patterns, torch.ones_like(patterns[0]), torch.zeros_like(patterns[0])):
        check_resets(core, _inputs(core), resets)


def check_resets(core: MemoryCore, inputs: Tensor, resets: Tensor) -> None:
    """Make sure that each reset is the start of a separate sequence.

    Args:
        core: in double precision.
        inputs: ``[T, B, I]``.
        resets: boolean ``[T, B]``.

    Raises:
        AssertionError: it gives something else than separate sequences do.
    """
    together = core(inputs, None, resets)
    outputs, metas = torch.zeros_like(together.outputs), torch.zeros_like(together.meta_loss)
    for b, start, stop in _episodes(resets):
        alone = core(inputs[start:stop, b : b + 1])
        outputs[start:stop, b], metas[start:stop, b] = alone.outputs[:, 0], alone.meta_loss[:, 0]
    separate = together._replace(outputs=outputs, meta_loss=metas)
    _require_same_output("of sequences with resets", together, separate)
    _require_same_gradients("of sequences with resets", core, together, separate)


def _episodes(resets: Tensor) -> Iterator[tuple[int, int, int]]:
    """Example, first step and the step after the last."""
    for b, column in enumerate(resets.unbind(1)):
        cuts = [0, *[t for t in range(1, len(column)) if column[t]], len(column)]
        for start, stop in pairwise(cuts):
            yield b, start, stop


def _resets_after_a_fault(make: Make) -> None:
    """A reset ends the effect of numbers that are not finite, in inputs and in states."""
    core = make(0)
    inputs, resets = _inputs(core), torch.zeros(STEPS, BATCH, dtype=torch.bool)
    inputs[0, 0], resets[1, 0] = torch.nan, True
    spoiled = core(inputs, None, resets)
    alone = core(inputs[1:, :1])
    _require_same("the outputs after a reset", spoiled.outputs[1:, :1], alone.outputs)
    state = core.step(inputs[0])[1]
    output, state = core.step(inputs[1], state, resets[1])
    _require_same("the output of a step after a reset", output[:1], alone.outputs[0])
    with torch.no_grad(), core.acting():
        state = core.step(inputs[0])[1]
        output, state = core.step(inputs[1], state, resets[1])
        _require_same("the output of an acting step after a reset", output[:1], alone.outputs[0])
    state = core.step(inputs[0])[1]
    resets = resets.roll(-1, 0)
    _require_same(
        "the outputs after a reset at once",
        core(inputs[1:], state, resets[:-1]).outputs[:, :1],
        alone.outputs,
    )


def _acting_alone(make: Make) -> None:
    """Inside acting() of one core, another one of its kind keeps the states that it was given."""
    one, other = make(0), make(1)
    inputs = _inputs(other)
    with torch.no_grad(), one.acting():
        state: Any = None
        for x in inputs[:2]:
            _, state = other.step(x, state)
        first = other.step(inputs[2], state)[0].clone()
        _require_same("the second step from a state", other.step(inputs[2], state)[0], first, 0.0)


def _resets_cut_gradients(make: Make) -> None:
    """No gradient flows back across a reset, and it flows where there is none."""
    core = make(0)
    inputs, resets = _inputs(core).requires_grad_(), torch.zeros(STEPS, BATCH, dtype=torch.bool)
    resets[2, 0] = True
    gradient = torch.autograd.grad(core(inputs, None, resets).outputs[2:].sum(), inputs)[0]
    _require(not gradient[:2, 0].any(), "some flows across")
    _require(bool(gradient[:2, 1].any()), "none flows where no reset is")


def _independence(make: Make) -> None:
    """The examples of a batch know nothing of each other: each gives what it gives alone."""
    core = make(0)
    inputs = _inputs(core)
    together, changed = core(inputs), inputs.clone()
    changed[:, 1] += 1
    other = core(changed)
    rest = [b for b in range(BATCH) if b != 1]
    _require_same("the others' outputs", other.outputs[:, rest], together.outputs[:, rest], tolerance=1e-14)
    _require(not torch.allclose(other.outputs[:, 1], together.outputs[:, 1]), "an example ignores its inputs")
    for b in range(BATCH):
        alone = core(inputs[:, b : b + 1])
        _require_same("the outputs of an example alone", alone.outputs, together.outputs[:, b : b + 1])
        _require_same("the meta loss of an example alone", alone.meta_loss, together.meta_loss[:, b : b + 1])
        for name, one, all_ in zip(alone.state._fields, alone.state, together.state, strict=True):
            _require_same(f"{name} of an example alone", one, all_[b : b + 1])


def _gradients(make: Make) -> None:
    """Gradients of outputs, meta loss and state are those of finite differences."""
    core = make(0)
    parameters = tuple(p.detach().requires_grad_() for p in core.parameters())
    names = [key for key, _ in core.named_parameters()]
    resets = torch.tensor([[False, False], [False, True], [False, False]])
    inputs = torch.randn(3, 2, core.input_size, dtype=torch.float64).requires_grad_()
    state = core(_inputs(core)[:2, :2]).state
    kept = [i for i, field in enumerate(state) if field.is_floating_point()]
    start = tuple(state[i].detach().clone().requires_grad_() for i in kept)

    def run(inputs: Tensor, *values: Tensor) -> Tensor:
        fields = list(state)
        for i, value in zip(kept, values[len(names) :], strict=True):
            fields[i] = value
        named = dict(zip(names, values[: len(names)], strict=True))
        output = torch.func.functional_call(core, named, (inputs, type(state)(*fields), resets))
        results = (output.outputs, output.meta_loss, *output.state)
        return torch.cat([field.flatten().to(inputs.dtype) for field in results])

    torch.autograd.gradcheck(run, (inputs, *parameters, *start), fast_mode=True)


def _saving(make: Make) -> None:
    """A core that loads another's state_dict gives exactly what the other gives."""
    core, other = make(0), make(99)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor += 1
    inputs = _inputs(core)
    other.load_state_dict(core.state_dict())
    _require_same_output("of the other", other(inputs), core(inputs), tolerance=0)


def _refusals(make: Make) -> None:
    """Inputs, states and resets that do not fit are a ValueError or TypeError."""
    core = make(0)
    inputs, state, resets = _inputs(core), core(_inputs(core)).state, _resets(0)
    for what, arguments in _bad_arguments(core, inputs, state, resets):
        _require_refused(what, lambda arguments=arguments: core(*arguments))
    for what, arguments in _bad_arguments(core, inputs[0], state, resets[0]):
        _require_refused(f"{what}, in a step", lambda arguments=arguments: core.step(*arguments))


def _bad_arguments(
    core: MemoryCore, inputs: Any, state: Any, resets: Any
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "inputs of another size", (inputs[..., 1:], state, resets)
    yield "inputs with another dimension", (inputs.unsqueeze(0), state, resets)
    yield "inputs of float32 in a core of float64", (inputs.float(), state, resets)
    yield "no examples", (inputs[..., :0, :], None, None)
    yield "inputs that are a list", (inputs.tolist(), state, resets)
    if inputs.dim() == 3:
        yield "no steps", (inputs[:0], state, None)
    yield "resets of another shape", (inputs, state, resets[..., 1:])
    yield "resets of integers", (inputs, state, resets.int())
    yield "a state that is a list", (inputs, list(state), resets)
    for place, name in enumerate(state._fields):
        for what, value in _bad_fields(state[place], core.free_dimensions.get(name, {})):
            fields = [*state[:place], value, *state[place + 1 :]]
            yield f"a state whose {name} is {what}", (inputs, type(state)(*fields), resets)


def _bad_fields(field: Tensor, free: Mapping[int, str]) -> Iterator[tuple[str, Any]]:
    yield "None", None
    yield "for fewer examples", field[1:]
    yield "of another dimension", field.unsqueeze(-1)
    yield "of another dtype", field.half()
    if field.dim() > 1 and field.dim() - 1 not in free:
        yield "too long", torch.cat([field, field[..., :1], field[..., :1]], -1)


def _require_refused(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except (ValueError, TypeError):
        return
    except Exception as error:
        raise AssertionError(f"{what} is a {type(error).__name__}") from error
    raise AssertionError(f"{what} is accepted")


def _inputs(core: MemoryCore, seed: int = 1) -> Tensor:
    """``[T, B, I]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, BATCH, core.input_size, dtype=torch.float64, generator=generator)


def _resets(seed: int) -> Tensor:
    """Boolean ``[T, B]``."""
    return torch.rand(STEPS, BATCH, generator=torch.Generator().manual_seed(seed)) < 0.3


def _loss(output: CoreOutput) -> Tensor:
    """A number that depends on all outputs and the meta loss."""
    weights = torch.arange(1, output.outputs.numel() + 1, dtype=torch.float64).view_as(output.outputs)
    return (weights.sin() * output.outputs).sum() + output.meta_loss.sum()


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _require_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    _require(
        tuple(tensor.shape) == shape, f"the shape of {what} is {list(tensor.shape)} instead of {list(shape)}"
    )


def _require_same(what: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    _require_shape(what, found, tuple(expected.shape))
    one, other = found.detach().to(torch.float64), expected.detach().to(torch.float64)
    close = torch.allclose(one, other, rtol=tolerance if tolerance == TOLERANCE else 0, atol=tolerance)
    _require(close, f"{what} differ by up to {(one - other).abs().max().item() if one.numel() else 0:.2g}")


def _require_same_output(
    when: str, found: CoreOutput, expected: CoreOutput, tolerance: float = TOLERANCE
) -> None:
    _require_same(f"the outputs {when}", found.outputs, expected.outputs, tolerance)
    _require_same(f"the meta losses {when}", found.meta_loss, expected.meta_loss, tolerance)
    _require_same_state(when, found.state, expected.state, tolerance)


def _require_same_state(when: str, found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    for name, one, other in zip(expected._fields, found, expected, strict=True):
        _require_same(f"{name} of the states {when}", one, other, tolerance)


def _require_same_gradients(when: str, core: MemoryCore, found: CoreOutput, expected: CoreOutput) -> None:
    parameters = dict(core.named_parameters())
    pairs = [
        torch.autograd.grad(_loss(output), list(parameters.values()), allow_unused=True)
        for output in (found, expected)
    ]
    for name, parameter, one, other in zip(parameters, parameters.values(), *pairs, strict=True):
        zero = torch.zeros_like(parameter)
        _require_same(
            f"gradients of {name} {when}", zero if one is None else one, zero if other is None else other
        )


PROMISES: dict[str, Callable[[Make], None]] = {
    "shapes": _shapes,
    "traces": _traces,
    "dtypes": _dtypes,
    "devices": _devices,
    "repeats": _repeats,
    "steps": _steps,
    "acting": _acting,
    "acting alone": _acting_alone,
    "state goes on": _state_goes_on,
    "detaching": _detaching,
    "resets": _resets_restart,
    "resets after a fault": _resets_after_a_fault,
    "resets cut gradients": _resets_cut_gradients,
    "independence": _independence,
    "gradients": _gradients,
    "saving": _saving,
    "refusals": _refusals,
}
"""Name -> check; the first line of each check's docstring is the promise."""
