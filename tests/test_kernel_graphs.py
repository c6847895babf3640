"""The loop in CUDA graphs: on a GPU with real graphs, elsewhere with recordings that run again in Python."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import INPUTS, Case, beyond_rounding, configs, errors, poisoned
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import captured, choose, graphs

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for torch's deterministic mode
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


class Recordings:
    """In place of CUDA graphs: what was recorded runs again."""

    def __init__(self) -> None:
        self.made = 0

    def record(self, run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        self.made += 1
        return captured.record_in_python(run)


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recordings]:
    graphs.forget()
    found = Recordings()
    if not ON_GPU:
        monkeypatch.setattr(captured, "record", found.record)
        monkeypatch.setattr(graphs, "DEVICES", ("cuda", "cpu"))
    yield found
    graphs.forget()


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    with poisoned():
        yield


def make(kernel: str = "graphs", seed: int = 0, **changes: Any) -> MNMCore:
    torch.manual_seed(seed)
    config: dict[str, Any] = dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(6,), heads=2, recall_weights=(1.0, 0.5, 0.25)
    )
    return MNMCore(INPUTS, MNMConfig(**{**config, **changes}, kernel=kernel)).to(DEVICE, torch.float64)  # pyright: ignore[reportArgumentType]


def draw(steps: int, batch: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, INPUTS, generator=generator, dtype=torch.float64).to(DEVICE)


def results(core: MNMCore, inputs: Tensor, resets: Tensor | None = None) -> list[Tensor]:
    """Outputs, state and gradients."""
    output = core(inputs, None, resets)
    loss = output.outputs.square().sum() + output.meta_loss.sum()
    gradients = torch.autograd.grad(loss, list(core.parameters()), allow_unused=True)
    return [output.outputs, output.meta_loss, *output.state, *[g for g in gradients if g is not None]]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    assert len(one) == len(other)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(one, other, strict=True))


@given(st.integers(1, 300), st.lists(st.integers(0, 299), max_size=12, unique=True))
def test_pieces_cover_the_sequence_and_begin_where_episodes_do(steps: int, starts: list[int]) -> None:
    starts = sorted(start for start in starts if start < steps)
    lengths = graphs.piece_lengths(steps, starts)
    ends = [sum(lengths[: count + 1]) for count in range(len(lengths))]
    assert ends[-1] == steps
    assert {start for start in starts if start > 0} <= set(ends)
    assert set(lengths) <= set(graphs.LENGTHS)
    if not starts:
        assert len(lengths) == steps // 32 + (steps % 32).bit_count()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs(widest=6, layers=3, most=3), st.integers(1, 40), st.booleans(), st.integers(0, 10**6))
def test_equals_the_plain_loop(config: MNMConfig, steps: int, with_resets: bool, seed: int) -> None:
    # Writes that are not normalised let the memory grow without bound: chaos after a few steps.
    case = Case(config, min(steps, 3) if config.normalization == "none" else steps, 3, with_resets, seed)
    assert beyond_rounding(case.run("graphs", torch.float64), case) == {}


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("write_rule", ["local", "gradient"])
def test_a_long_sequence_with_episodes_that_start_anywhere(write_rule: str, recordings: Recordings) -> None:
    resets = torch.zeros(75, 2, dtype=torch.bool, device=DEVICE)
    resets[0, 1] = resets[7, 0] = resets[8] = resets[70, 1] = True
    expected = results(make("reference", write_rule=write_rule), draw(75), resets)
    assert same(results(make(write_rule=write_rule), draw(75), resets), expected)
    if not ON_GPU:
        # 7, 1, 62 and 5 steps: five lengths, in both directions.
        assert graphs.piece_lengths(75, [0, 7, 8, 70]) == [4, 2, 1, 1, 32, 16, 8, 4, 2, 4, 1]
        assert recordings.made == 2 * 6


def test_calls_do_not_see_each_others_buffers() -> None:
    core, plain = make(), make("reference")
    first, second = draw(5, seed=1), draw(5, seed=2)

    def interleaved(core: MNMCore) -> list[Tensor]:
        one, two = core(first), core(second, core(first).state)
        found = torch.autograd.grad(one.outputs.square().sum(), core.controller.weight_hh)
        found += torch.autograd.grad(two.outputs.square().sum(), core.controller.weight_hh)
        return [one.outputs, two.outputs, *found, *one.state, *two.state]

    assert same(interleaved(core), interleaved(plain))


def test_going_back_twice_gives_the_same_bits() -> None:
    core = make()
    loss = core(draw(3)).outputs.sum()
    once = torch.autograd.grad(loss, core.controller.weight_ih, retain_graph=True)
    assert torch.equal(once[0], torch.autograd.grad(loss, core.controller.weight_ih)[0])


def test_parameters_that_changed_count() -> None:
    trained = []
    for kernel in ("graphs", "reference"):
        core = make(kernel)
        optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
        for seed in range(3):
            optimizer.zero_grad()
            core(draw(6, seed=seed)).outputs.square().sum().backward()
            optimizer.step()
        trained.append(list(core.parameters()))
    assert same(*trained)


def test_another_core_of_the_same_shape_shares_the_graphs(recordings: Recordings) -> None:
    results(make(), draw(4))
    made = recordings.made
    assert same(results(make(seed=3), draw(4)), results(make("reference", seed=3), draw(4)))
    assert recordings.made == made
    results(make(normalization="width"), draw(4))
    assert ON_GPU or recordings.made > made


def test_acting_equals_the_plain_loop_and_keeps_nothing(recordings: Recordings) -> None:
    def act(kernel: str, mode: Callable[[], contextlib.AbstractContextManager[object]]) -> list[Tensor]:
        core, state, found = make(kernel), None, []
        with mode(), core.acting():
            for t in range(4):
                starts = torch.tensor([t == 2, False], device=DEVICE)
                output, state = core.step(draw(4)[t], state, starts)
                found.append(output)
        return [*found, *(state or ())]

    for mode in (torch.inference_mode, torch.no_grad):
        assert same([x.clone() for x in act("graphs", mode)], [x.clone() for x in act("reference", mode)])
    assert ON_GPU or recordings.made == 1
    # What was recorded in the inference mode is of use outside of it.
    assert same(results(make(), draw(1)), results(make("reference"), draw(1)))


def test_snapshots_change_no_result() -> None:
    expected = results(make("reference"), draw(11))
    assert same(results(make(snapshot_every=4), draw(11)), expected)


def test_gradients_of_inputs_alone() -> None:
    found = []
    for kernel in ("graphs", "reference"):
        core, inputs = make(kernel).requires_grad_(False), draw(5).requires_grad_()
        found.append(list(torch.autograd.grad(core(inputs).outputs.square().sum(), inputs)))
    assert same(*found)


def test_only_the_latest_graphs_are_kept(monkeypatch: pytest.MonkeyPatch, recordings: Recordings) -> None:
    monkeypatch.setattr(graphs, "_pieces", captured.Latest(3))
    core, plain = make(), make("reference")
    for batch in (1, 2, 3, 4, 1):
        assert same(results(core, draw(3, batch)), results(plain, draw(3, batch)))
        assert len(graphs._pieces) <= 3
    assert ON_GPU or recordings.made == 5 * 2 * 2


def test_the_latest_stay() -> None:
    kept, made = captured.Latest(2), []

    def ask(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key)

    assert [ask(key) for key in "abacab"] == list("abacab")
    assert made == list("abcb")
    kept.clear()
    assert len(kept) == 0


def test_where_no_graph_can_be_recorded_the_plain_form_runs(
    monkeypatch: pytest.MonkeyPatch, recordings: Recordings
) -> None:
    def refuse(run: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    expected = results(make("torch"), draw(5))
    monkeypatch.setattr(captured, "record", refuse)
    with pytest.warns(UserWarning, match=r"slower torch backend.*: CUDA error: .* is capturing$"):
        found = results(make(), draw(5))
    assert same(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(results(make(), draw(5)), expected)


def test_inside_a_recording_of_the_callers_the_plain_form_runs(
    monkeypatch: pytest.MonkeyPatch, recordings: Recordings
) -> None:
    monkeypatch.setattr(graphs, "_can_record", lambda tensors: False)
    assert same(results(make(), draw(5)), results(make("torch"), draw(5)))
    assert recordings.made == 0


def test_where_states_need_too_much_memory_the_plain_form_runs(
    monkeypatch: pytest.MonkeyPatch, recordings: Recordings
) -> None:
    monkeypatch.setattr(graphs, "STATE_BYTES", 0)
    resets = torch.ones(6, 2, dtype=torch.bool, device=DEVICE)
    sizes: dict[str, Any] = dict(
        hidden_size=4, key_size=40, value_size=40, memory_widths=(), heads=1, recall_weights=(1.0,)
    )
    expected = results(make("reference", **sizes), draw(6), resets)
    assert same(results(make(**sizes), draw(6), resets), expected)
    assert recordings.made == 0
    # One long piece keeps less than its steps do.
    results(make(**sizes), draw(32))
    assert ON_GPU or recordings.made == 2


@pytest.mark.skipif(ON_GPU, reason="counts recordings in Python")
def test_a_mode_that_changes_the_operations_is_recorded_anew(recordings: Recordings) -> None:
    core = make()
    results(core, draw(1))
    made, before = recordings.made, torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        results(core, draw(1))
    finally:
        torch.set_float32_matmul_precision(before)
    assert recordings.made == 2 * made


@pytest.mark.skipif(ON_GPU, reason="says what holds on the CPU")
def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "DEVICES", ("cuda",))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert choose("auto", torch.device("cuda", 1), dtype) == "graphs"
        assert choose("graphs", torch.device("cuda"), dtype, "gradient") == "graphs"
    assert choose("auto", torch.device("cuda"), torch.float32, "gated-local") == "reference"
    assert choose("auto", torch.device("cuda"), torch.float32, obstacle="it is hooked") == "reference"
    assert choose("auto", torch.device("meta"), torch.float32) == "torch"
    with pytest.raises(ValueError, match=r"^The graphs kernel runs on CUDA devices, not on cpu\.$"):
        make("graphs")(draw(2))


class NothingWaits(TorchDispatchMode):
    """Fails at an operation that a graph cannot hold: one that waits for a number, or moves a tensor.

    The device is torch's ``meta``, in place of a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        assert not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*func.tags}, func
        self._check_devices(func, (args, kwargs))
        found = func(*args, **(kwargs or {}))
        self._check_devices(func, found)
        self.seen += 1
        return found

    def _check_devices(self, func: Any, values: Any) -> None:
        tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
        assert {value.device.type for value in tensors} <= {"meta"}, func


class NoNumbers(TorchFunctionMode):
    """Fails where a tensor is made of numbers from the processor, which lies below the operations."""

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("write_rule", ["local", "gradient"])
@pytest.mark.parametrize("normalization", ["squared-norm", "width"])
def test_what_is_recorded_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, write_rule: str, normalization: str
) -> None:
    checked = []

    def record(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        with NothingWaits() as mode, NoNumbers():
            found = list(run())
        checked.append(mode.seen)
        return lambda: None, found

    monkeypatch.setattr(captured, "record", record)
    config = MNMConfig(
        write_rule=write_rule,  # pyright: ignore[reportArgumentType]
        normalization=normalization,  # pyright: ignore[reportArgumentType]
        heads=2,
        recall_weights=(1.0, 0.5),
    )
    core = MNMCore(INPUTS, config).to("meta")
    inputs = torch.randn(4, 3, INPUTS, device="meta")
    graphs._make_piece(
        core._scan_settings, [inputs, *core._scan_parameters(), *core.initial_state(3)], keep=True
    )
    assert len(checked) == 2
    assert min(checked) > 100


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x.nonzero(),
        lambda x: x[0].item(),
        lambda x: x.tolist(),
        lambda x: x + torch.tensor([1.0]),
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_something_that_waits_would_be_seen(bad: Callable[[Tensor], object]) -> None:
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), NothingWaits(), NoNumbers():
        bad(torch.empty(3, device="meta"))


@pytest.mark.cuda
def test_real_graphs_in_float32_are_as_exact_as_the_torch_kernel() -> None:
    config = MNMConfig(hidden_size=45, key_size=70, value_size=61, memory_widths=(110, 131), heads=3)
    case = Case(config, 100, 37, with_resets=False, seed=1)
    exact = case.run("reference", torch.float64)
    usual = errors(case.run("reference", torch.float32), exact)
    found = errors(case.run("graphs", torch.float32), exact)
    assert {name: error for name, error in found.items() if error > 1e-5 + 5 * max(usual.values())} == {}


@pytest.mark.cuda
def test_real_graphs_give_the_same_bits_again_and_again() -> None:
    core = make(heads=3, key_size=33, value_size=40)
    inputs = draw(45, batch=20)
    first = results(core, inputs)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(results(core, inputs), first, strict=True))


@pytest.mark.cuda
def test_inside_a_real_recording_the_plain_form_runs() -> None:
    core, inputs = make(), draw(5)
    with torch.no_grad():
        expected = core(inputs).outputs
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = core(inputs).outputs
        graph.replay()
    torch.testing.assert_close(found, expected)
