"""The LSTM and the GRU in C++ against the plain loop, and the cores that fall back to torch's layers."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mnm_rl.cores import make_core
from mnm_rl.cores.recurrent import GRUCore, GRUState, LSTMCore, LSTMState, RecurrentConfig
from mnm_rl.kernels import build, cpu, recurrent
from mnm_rl.kernels.recurrent import Kind, RecurrentParameters, RecurrentResult, plain, scan

KINDS: tuple[Kind, ...] = ("lstm", "gru")
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}
BOUND_OF_KERNELS = 1e-5  # as in test_kernel_saturation.py
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def compiled() -> None:
    try:
        cpu.operators()
    except build.BuildError:
        pytest.skip("no C++ compiler")


class Problem:
    """Random tensors of a call; all get gradients unless told otherwise."""

    def __init__(
        self,
        kind: Kind,
        sizes: tuple[int, int, int, int],
        resets: Tensor | float | None = None,
        *,
        learned_initial: bool = True,
        dtype: torch.dtype = torch.float64,
        scale: float = 1.0,
    ):
        torch.manual_seed(0)
        steps, batch, inputs, hidden = sizes
        self.kind: Kind = kind
        rows = hidden * (4 if kind == "lstm" else 3)
        shapes = ((rows, inputs), (rows, hidden), (rows,), (rows,))
        self.parameters = RecurrentParameters(
            *((torch.rand(shape, dtype=dtype) * 2 - 1).div(hidden**0.5).requires_grad_() for shape in shapes)
        )
        self.inputs = (scale * torch.randn(steps, batch, inputs, dtype=dtype)).requires_grad_()
        fields = 2 if kind == "lstm" else 1
        state = torch.randn(2, fields, batch, hidden, dtype=dtype)
        self.state = tuple(field.clone().requires_grad_() for field in state[0])
        self.initial = tuple(field.clone().requires_grad_() for field in state[1]) if learned_initial else ()
        drawn = torch.rand(steps, batch)
        self.resets: Any = drawn < resets if isinstance(resets, float) else resets

    @property
    def trained(self) -> dict[str, Tensor]:
        names = {"hidden": 0, "cell": 1}
        return {
            "inputs": self.inputs,
            **self.parameters._asdict(),
            **{f"state {name}": self.state[i] for name, i in names.items() if i < len(self.state)},
            **{f"initial {name}": self.initial[i] for name, i in names.items() if i < len(self.initial)},
        }

    def run(self, operation: Callable[..., RecurrentResult]) -> RecurrentResult:
        return operation(self.kind, self.inputs, self.parameters, self.state, self.resets, self.initial)

    def results(self, operation: Callable[..., RecurrentResult]) -> dict[str, Tensor]:
        """Outputs, state and all gradients that there are."""
        outputs, state = self.run(operation)
        results = {"outputs": outputs, **{f"final {i}": field for i, field in enumerate(state)}}
        trained = {name: tensor for name, tensor in self.trained.items() if tensor.requires_grad}
        loss: Any = sum((weights_like(x) * x).sum() for x in results.values())
        # Without resets nothing depends on the initial state, which may be all that is trained.
        depends = trained and loss.requires_grad
        unknown = [None] * len(trained)
        found = torch.autograd.grad(loss, [*trained.values()], allow_unused=True) if depends else unknown
        for (name, tensor), gradient in zip(trained.items(), found, strict=True):
            results[f"d {name}"] = torch.zeros_like(tensor) if gradient is None else gradient
        return {name: result.detach() for name, result in results.items()}


def weights_like(x: Tensor) -> Tensor:
    """Some weights for a loss, of both signs and in no order that could hide a mistake."""
    return torch.sin(torch.arange(1.0, x.numel() + 1, dtype=torch.float64) * 1.7).view_as(x).to(x.dtype)


def check_equal(problem: Problem, bound: float = 1e-11) -> None:
    found, expected = problem.results(scan), problem.results(plain)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(
            found[name], wanted, rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


# Sizes around whole vectors (4, 8 and 16 lanes), tiles of six rows and blocks of 16 sequences.
sizes = st.tuples(
    st.integers(1, 12), st.integers(1, 40), st.integers(0, 9), st.sampled_from([*range(1, 19), 31, 33])
)


@every_kind
@settings(deadline=None, max_examples=60)
@given(sizes, st.data())
def test_values_and_gradients_are_those_of_the_plain_loop(
    kind: Kind, sizes: Any, data: st.DataObject
) -> None:
    share = data.draw(st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]))
    problem = Problem(kind, sizes, share, learned_initial=data.draw(st.booleans()))
    for tensor in problem.trained.values():
        tensor.requires_grad_(data.draw(st.booleans()))
    check_equal(problem)


@every_kind
def test_an_initial_state_that_no_reset_uses_has_no_gradient(kind: Kind) -> None:
    problem = Problem(kind, (3, 2, 4, 5))
    for name, tensor in problem.trained.items():
        tensor.requires_grad_(name.startswith("initial"))
    check_equal(problem)


@every_kind
@pytest.mark.parametrize("learned_initial", [True, False])
@pytest.mark.parametrize("where", ["first", "last", "all", "none", "one sequence", "middle"])
def test_resets_anywhere(kind: Kind, where: str, learned_initial: bool) -> None:
    resets = torch.zeros(6, 35, dtype=torch.bool)
    places: dict[str, Any] = {
        "first": 0, "last": -1, "all": slice(None), "none": slice(0, 0),
        "one sequence": (slice(None), 33), "middle": 3,
    }  # fmt: skip
    resets[places[where]] = True
    check_equal(Problem(kind, (6, 35, 3, 9), resets, learned_initial=learned_initial))


@every_kind
def test_long_sequences_of_many_chunks(kind: Kind) -> None:
    check_equal(Problem(kind, (1500, 3, 4, 24), 0.02))
    check_equal(Problem(kind, (40, 70, 5, 100), 0.1))


@every_kind
def test_float32_is_as_good_as_its_functions(kind: Kind) -> None:
    exact, rounded = (Problem(kind, (120, 17, 5, 50), 0.05, dtype=d) for d in (torch.float64, torch.float32))
    rounded.resets = exact.resets
    with torch.no_grad():
        for tensor, wanted in zip(rounded.trained.values(), exact.trained.values(), strict=True):
            tensor.copy_(wanted)
    expected = exact.results(plain)
    for name, value in rounded.results(scan).items():
        assert (value.double() - expected[name]).norm() < BOUND_OF_KERNELS * expected[name].norm(), name


@every_kind
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e6, 1e8])
def test_large_inputs_give_torchs_values_and_gradients(kind: Kind, scale: float) -> None:
    problem = Problem(kind, (12, 9, 6, 32), 0.1, dtype=torch.float32, scale=scale)
    found, expected = problem.results(scan), problem.results(plain)
    for name, wanted in expected.items():
        difference = (found[name] - wanted).norm() / wanted.norm().clamp(min=1e-30)
        assert difference < BOUND_OF_KERNELS, (name, difference)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_gates_pass_no_gradient_at_all(kind: Kind, dtype: torch.dtype) -> None:
    problem = Problem(kind, (3, 2, 1, 10), dtype=dtype)
    with torch.no_grad():
        problem.inputs.fill_(1.0)
        problem.parameters.weight_ih.fill_(1e4)
    found = problem.results(scan)
    for name in ("d inputs", "d weight_ih", "d weight_hh", "d bias_ih"):
        assert torch.equal(found[name], torch.zeros_like(found[name])), name


@every_kind
def test_not_a_number_stays_in_its_episode(kind: Kind) -> None:
    resets = torch.zeros(6, 4, dtype=torch.bool)
    resets[4, 1] = True
    problem = Problem(kind, (6, 4, 3, 9), resets)
    good = problem.run(scan).outputs
    with torch.no_grad():
        problem.inputs[2, 1, 0] = torch.nan
    found = problem.run(scan).outputs
    assert found[2:4, 1].isnan().all()
    rest = torch.ones(6, 4, dtype=torch.bool)
    rest[2:4, 1] = False
    assert torch.equal(found[rest], good[rest])
    gradient = torch.autograd.grad(found[rest].sum(), problem.inputs)[0]
    assert gradient[4:].isfinite().all()
    assert gradient[:, [0, 2, 3]].isfinite().all()


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_inputs_saturate_all_gates(kind: Kind, dtype: torch.dtype) -> None:
    problem = Problem(kind, (6, 4, 3, 9), dtype=dtype)
    with torch.no_grad():
        problem.inputs[2, 1, 0] = torch.inf
    expected = problem.run(plain).outputs
    assert expected.isfinite().all()
    torch.testing.assert_close(problem.run(scan).outputs, expected, rtol=0, atol=1e-6)


@every_kind
def test_gradcheck_and_second_derivatives(kind: Kind) -> None:
    problem = Problem(kind, (3, 2, 2, 3), 0.3)
    assert problem.resets.any()
    trained = problem.trained
    count = 2 if kind == "lstm" else 1

    def run(*row: Tensor) -> tuple[Tensor, ...]:
        state, initial = row[5 : 5 + count], row[5 + count :]
        result = scan(kind, row[0], RecurrentParameters(*row[1:5]), state, problem.resets, initial)
        return result.outputs, *result.state

    assert torch.autograd.gradcheck(run, tuple(trained.values()))
    assert torch.autograd.gradgradcheck(run, tuple(trained.values()))


@every_kind
def test_second_derivatives_where_one_tensor_depends_on_another(kind: Kind) -> None:
    problem = Problem(kind, (4, 3, 9, 9), 0.3)
    found = {}
    for operation in (scan, plain):
        tied = torch.tanh(problem.inputs @ problem.parameters.weight_hh[:9])
        first = operation(kind, tied, problem.parameters, problem.state, problem.resets, problem.initial)
        second = operation(kind, first.outputs, problem.parameters, first.state, problem.resets)
        loss = (weights_like(second.outputs) * second.outputs).sum()
        (gradient,) = torch.autograd.grad(loss, problem.parameters.weight_hh, create_graph=True)
        found[operation] = torch.autograd.grad(gradient.square().sum(), [*problem.trained.values()])
    for one, other in zip(found[scan], found[plain], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@every_kind
@pytest.mark.parametrize("needed", ["inputs", "weight_hh", "bias_ih", "state hidden", "initial hidden"])
def test_one_gradient_alone(kind: Kind, needed: str) -> None:
    problem = Problem(kind, (5, 4, 3, 6), 0.3)
    for name, tensor in problem.trained.items():
        tensor.requires_grad_(name == needed)
    found = problem.results(scan)
    assert [name for name in found if name.startswith("d ")] == [f"d {needed}"]
    check_equal(problem)


@every_kind
def test_a_loss_of_the_last_state_alone(kind: Kind) -> None:
    problem = Problem(kind, (5, 4, 3, 6), 0.3)
    row = list(problem.trained.values())
    for i in range(len(problem.state)):
        found, expected = (
            torch.autograd.grad(problem.run(operation).state[i].sum(), row, allow_unused=True)
            for operation in (scan, plain)
        )
        for one, other in zip(found, expected, strict=True):
            assert one is not None
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


@every_kind
def test_tensors_that_are_not_contiguous(kind: Kind) -> None:
    problem = Problem(kind, (5, 4, 6, 6), 0.3)
    strange = copy.copy(problem)
    strange.inputs = problem.inputs.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    strange.parameters = problem.parameters._replace(
        weight_hh=problem.parameters.weight_hh.detach().t().contiguous().t().requires_grad_()
    )
    strange.resets = problem.resets.t().contiguous().t()
    strange.state = tuple(field.detach()[:1].expand(4, 6).requires_grad_() for field in problem.state)
    check_equal(strange)
    outputs, dense = (problem.run(scan).outputs for _ in range(2))
    one = outputs.new_ones(1, 1, 1).expand_as(outputs)  # its memory holds a single number
    (found,) = torch.autograd.grad(outputs, problem.inputs, one)
    assert torch.equal(found, torch.autograd.grad(dense, problem.inputs, one.contiguous())[0])


@every_kind
def test_an_empty_batch_is_no_error(kind: Kind) -> None:
    problem = Problem(kind, (3, 0, 4, 5))
    found, expected = problem.results(scan), problem.results(plain)
    for name, wanted in expected.items():
        assert torch.equal(found[name], wanted), name


@every_kind
def test_threads_change_no_bit(kind: Kind) -> None:
    problem, threads, found = (
        Problem(kind, (9, 100, 5, 20), 0.1, dtype=torch.float32),
        torch.get_num_threads(),
        [],
    )
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(problem.run(scan))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0].outputs, found[1].outputs)


@every_kind
def test_faults_are_a_value_error_with_one_sentence(kind: Kind) -> None:
    problem = Problem(kind, (5, 4, 3, 6))
    faults: list[tuple[dict[str, Any], str]] = [
        (
            {"state": (torch.zeros(1, 6).double(), *problem.state[1:])},
            r"^state: hidden must have the shape \[4, 6\]",
        ),
        (
            {"state": tuple(x.float() for x in problem.state)},
            r"^state: hidden must be of type Double, not Float\.$",
        ),
        ({"resets": torch.zeros(5, 3).bool()}, r"^resets must have the shape \[5, 4\], not \[5, 3\]\.$"),
        ({"resets": torch.zeros(5, 4)}, r"^resets must be of type Bool, not Float\.$"),
        ({"initial": (torch.zeros(4, 7).double(),)}, r"^initial: "),
        ({"inputs": problem.inputs[..., :2]}, r"^parameters: weight_ih must have the shape \[\d+, 2\]"),
        ({"inputs": problem.inputs.half()}, r"^inputs must be of type Float or Double, not Half\.$"),
        ({"inputs": problem.inputs[:0]}, r"^inputs must have the shape \[T, B, I\] with T > 0"),
    ]
    names = ("inputs", "parameters", "state", "resets", "initial")
    for change, message in faults:
        arguments = {name: change.get(name, getattr(problem, name)) for name in names}
        with pytest.raises(ValueError, match=message):
            scan(kind, **arguments)


# The cores: which of them run the operation, and that all others give the same.


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """Grows with every call of the operation."""
    made: list[Kind] = []

    def counted(kind: Kind, *arguments: Any) -> RecurrentResult:
        made.append(kind)
        return scan(kind, *arguments)

    monkeypatch.setattr(recurrent, "scan", counted)
    return made


def core(kind: Kind, inputs: int = 3, hidden: int = 5) -> Any:
    torch.manual_seed(0)
    return make_core(kind, inputs, hidden_size=hidden).double()


def sequence(steps: int = 7, batch: int = 4, inputs: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(steps, batch, inputs, dtype=torch.float64, generator=generator)
    return drawn, torch.rand(steps, batch, generator=generator) < 0.2


def in_pieces(core: Any, inputs: Tensor, resets: Tensor | None) -> tuple[Tensor, Any]:
    """The core by torch's layer, whatever it would choose."""
    initial = core.initial_state(inputs.shape[1])
    return core._run_in_pieces(inputs, initial, initial, resets)


def check_as_in_pieces(core: Any) -> None:
    inputs, resets = sequence()
    output = core(inputs, None, resets)
    outputs, state = in_pieces(core, inputs, resets)
    torch.testing.assert_close(output.outputs, outputs)
    assert type(output.state) is type(state)
    for one, other in zip(output.state, state, strict=True):
        torch.testing.assert_close(one, other)
    wanted = [*core.parameters()]
    found, expected = (
        torch.autograd.grad((weights_like(x) * x).sum(), wanted, allow_unused=True)
        for x in (output.outputs, outputs)
    )
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@every_kind
def test_a_core_runs_the_operation(kind: Kind, calls: list[Kind]) -> None:
    check_as_in_pieces(core(kind))
    assert calls == [kind]


@every_kind
def test_without_resets_and_gradients_torchs_lstm_is_the_faster_one(kind: Kind, calls: list[Kind]) -> None:
    inputs, resets = sequence()
    made = core(kind)
    made(inputs)
    assert len(calls) == 1
    with torch.no_grad():
        made(inputs, None, resets)
        assert len(calls) == 2
        made(inputs)
    assert len(calls) == (2 if kind == "lstm" else 3)


def _learned(kind: Kind) -> Any:
    """A core whose initial state is learned."""
    base, state_class = {"lstm": (LSTMCore, LSTMState), "gru": (GRUCore, GRUState)}[kind]

    class Learned(base):  # pyright: ignore
        def __init__(self) -> None:
            super().__init__(3, RecurrentConfig(5))
            self.start = nn.Parameter(torch.randn(len(state_class._fields), 5))

        def initial_state(self, batch_size: int) -> Any:
            return state_class(*(row.expand(batch_size, 5) for row in self.start))

    torch.manual_seed(0)
    return Learned().double()


@every_kind
def test_resets_go_to_an_initial_state_that_is_learned(kind: Kind, calls: list[Kind]) -> None:
    made = _learned(kind)
    check_as_in_pieces(made)
    assert calls == [kind]
    inputs, resets = sequence()
    assert resets[1:].any()
    outputs = made(inputs, None, resets).outputs
    (gradient,) = torch.autograd.grad(outputs[5].square().sum(), made.start)
    assert gradient.abs().min() > 0


class LoudLSTM(nn.LSTM):
    def forward(self, *arguments: Any) -> Any:
        outputs, state = super().forward(*arguments)
        return 2 * outputs, state


class LoudGRU(nn.GRU):
    def forward(self, *arguments: Any) -> Any:
        outputs, state = super().forward(*arguments)
        return 2 * outputs, state


def _hook(made: Any) -> None:
    made.layer.register_forward_hook(lambda layer, given, result: (2 * result[0], result[1]))


def _replace(made: Any) -> None:
    made.layer = {nn.LSTM: LoudLSTM, nn.GRU: LoudGRU}[type(made.layer)](3, 5).double()


def _without_biases(made: Any) -> None:
    made.layer = type(made.layer)(3, 5, bias=False).double()


def _normalized(made: Any) -> None:
    parametrizations.weight_norm(made.layer, "weight_hh_l0")


def _overridden(made: Any) -> None:
    original = made._run
    made._run = lambda inputs, state: original(2 * inputs, state)


@every_kind
@pytest.mark.parametrize("change", [_hook, _replace, _without_biases, _normalized, _overridden])
def test_a_core_that_was_changed_runs_its_own_layer(kind: Kind, change: Any, calls: list[Kind]) -> None:
    made = core(kind)
    before = made(*sequence()[:1]).outputs
    calls.clear()
    change(made)
    check_as_in_pieces(made)
    if change is not _normalized:
        assert not torch.allclose(made(*sequence()[:1]).outputs, before)
    assert calls == []


@every_kind
def test_a_layer_with_its_batch_first_is_not_taken_for_a_plain_one(kind: Kind, calls: list[Kind]) -> None:
    made = core(kind)
    made.layer = LAYERS[kind](3, 5, batch_first=True).double()
    inputs, _ = sequence(4, 4)
    given = type(made.initial_state(1))
    state = given(*(torch.zeros(4, 5, dtype=torch.float64) for _ in given._fields))
    with pytest.raises(RuntimeError):  # torch's own word for a state of the wrong batch
        made(inputs[:3], state)
    assert calls == []


@every_kind
def test_without_a_compiler_torchs_layers_run_and_nothing_is_said(
    kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[Kind],
    recwarn: pytest.WarningsRecorder,
    capfd: Any,
) -> None:
    asked = []

    def no_compiler() -> Any:
        asked.append(1)
        raise build.BuildError("no C++ compiler")

    monkeypatch.setattr(cpu, "operators", no_compiler)
    monkeypatch.setattr(recurrent, "compiles", functools.cache(recurrent.compiles.__wrapped__))
    made = core(kind)
    check_as_in_pieces(made)
    made(*sequence()[:1])
    assert calls == []
    assert asked == [1]
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")


@every_kind
def test_forward_mode_and_dispatch_modes_see_what_happens(kind: Kind, calls: list[Kind]) -> None:
    made, (inputs, resets) = core(kind), sequence()
    tangent = torch.ones_like(inputs)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inputs, tangent)
        found = forward_ad.unpack_dual(made(dual, None, resets).outputs).tangent
    step = 1e-6
    with torch.no_grad():
        more, less = (in_pieces(made, inputs + s * tangent, resets)[0] for s in (step, -step))
    torch.testing.assert_close(found, (more - less) / (2 * step), rtol=1e-6, atol=1e-8)
    assert calls == []
    with FlopCounterMode(display=False) as counter:
        made(inputs, None, resets)
    assert counter.get_total_flops() > 0
    assert calls == []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(inputs, None, resets).outputs.dtype == torch.float64
    assert calls == [kind]


@every_kind
def test_checkpointing_and_copies(kind: Kind, calls: list[Kind]) -> None:
    made, (inputs, resets) = core(kind), sequence()
    inputs.requires_grad_()
    (expected,) = torch.autograd.grad(made(inputs, None, resets).outputs.square().sum(), inputs)
    outputs: Any = checkpoint(lambda x: made(x, None, resets).outputs, inputs, use_reentrant=False)
    (found,) = torch.autograd.grad(outputs.square().sum(), inputs)
    assert torch.equal(found, expected)
    assert len(calls) == 3
    assert torch.equal(copy.deepcopy(made)(inputs, None, resets).outputs, made(inputs, None, resets).outputs)


@every_kind
def test_steps_make_what_sequences_make(kind: Kind) -> None:
    made, (inputs, resets) = core(kind), sequence()
    outputs, state = made(inputs, None, resets).outputs, None
    for t, x in enumerate(inputs):
        output, state = made.step(x, state, resets[t])
        torch.testing.assert_close(output, outputs[t])


@every_kind
def test_nothing_is_kept_after_a_backward_pass(kind: Kind) -> None:
    made, (inputs, resets) = core(kind), sequence()
    outputs = made(inputs, None, resets).outputs
    kept = weakref.ref(outputs)
    outputs.sum().backward()
    del outputs
    assert kept() is None


@pytest.mark.parametrize(("batch", "hidden"), [(1, 64), (300, 3)])
def test_sequences_as_long_as_whole_chunks(batch: int, hidden: int) -> None:
    chunk = max(2**18 // (batch * 4 * hidden * 8), 256 // batch + 1)  # as recurrent.h has it
    for length in (chunk - 1, chunk, chunk + 1, 2 * chunk):
        check_equal(Problem("lstm", (max(1, length), batch, 2, hidden), 0.01))
