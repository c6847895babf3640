"""What does not fit a core is an error in one sentence, before any kernel runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from core_faults import CORES, valid

from mnm_rl.cores import make_core
from mnm_rl.cores.recurrent import LSTMState

every_choice = pytest.mark.parametrize("choice", CORES)


def test_one_wrong_thing_is_never_a_crash_and_never_silent():
    script = Path(__file__).parent / "core_faults.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "all refused"


@every_choice
def test_empty_batches_and_empty_sequences_are_refused(choice):
    core = make_core(CORES[choice][0], 6, **CORES[choice][1])
    for shape in ((0, 4, 6), (3, 0, 6), (0, 0, 6)):
        with pytest.raises(ValueError, match=r"inputs of shape \[T, B, 6\] with T >= 1 and B >= 1, got \["):
            core(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"inputs of shape \[B, 6\] with B >= 1, got \[0, 6\]"):
        core.step(torch.zeros(0, 6))


@every_choice
def test_the_message_names_what_is_wrong(choice):
    core, inputs, state, resets = valid(*CORES[choice])
    name = type(core).__name__

    def refused(error: Any, message: str, *arguments: Any) -> None:
        with pytest.raises(error, match=message):
            core(*arguments)

    refused(
        ValueError,
        f"{name} takes inputs that are torch.float32 on cpu, .* got torch.float64 on cpu",
        inputs.double(),
    )
    refused(ValueError, f"{name} takes inputs .* got torch.float32 on meta", inputs.to("meta"))
    refused(TypeError, f"{name} takes inputs as a tensor, got list", inputs.tolist())
    refused(ValueError, "resets must be boolean of shape .*got torch.int64", inputs, None, resets.long())
    refused(TypeError, "resets must be a boolean tensor or None, got list", inputs, None, resets.tolist())
    refused(
        TypeError, f"The state of {name} must be a {type(state).__name__}, got tuple", inputs, tuple(state)
    )
    for field, tensor in state._asdict().items():
        other = state._replace(**{field: tensor[1:]})
        refused(
            ValueError,
            rf"The state's {field} of {name} must have the shape \[4, .*\].*, got \[3, ",
            inputs,
            other,
        )
        other = state._replace(**{field: tensor.half()})
        refused(ValueError, rf"The state's {field} of {name} must be .*, got torch.float16", inputs, other)
        other = state._replace(**{field: None})
        refused(TypeError, rf"The state's {field} of {name} must be a tensor, got NoneType", inputs, other)


def test_tables_of_different_lengths_are_refused():
    core, inputs, state, _ = valid(*CORES["lstm-salu"])
    message = r"The state's values of LookupCore must have the shape \[4, N, 4\] with N = 6, got \[4, 5, 4\]"
    with pytest.raises(ValueError, match=message):
        core(inputs, state._replace(values=state.values[:, 1:]))
    core(
        inputs,
        state._replace(**{name: getattr(state, name)[:, 1:] for name in ("keys", "values", "written")}),
    )


def test_a_step_is_refused_in_terms_of_a_step():
    core, inputs, state, _ = valid(*CORES["mnm-p cpu"])
    with pytest.raises(ValueError, match=r"takes inputs of shape \[B, 6\] with B >= 1, got \[3, 4, 6\]"):
        core.step(inputs)
    with pytest.raises(
        ValueError, match=r"resets must be boolean of shape \[4\], got torch.bool of shape \[3\]"
    ):
        core.step(inputs[0], state, torch.ones(3, dtype=torch.bool))


@every_choice
def test_a_core_may_change_its_dtype(choice):
    core, inputs, state, resets = valid(*CORES[choice])
    core.double()
    wide = type(state)(*[field.double() if field.is_floating_point() else field for field in state])
    assert core(inputs.double(), wide, resets).outputs.dtype == torch.float64
    with pytest.raises(ValueError, match=r"takes inputs that are torch\.float64"):
        core(inputs, state, resets)
    core.float()
    assert core(inputs, state, resets).outputs.dtype == torch.float32


def test_parameters_of_another_dtype_from_a_checkpoint():
    core = make_core("lstm", 4, hidden_size=3)
    core(torch.zeros(1, 2, 4))
    core.load_state_dict({k: v.double() for k, v in core.state_dict().items()}, assign=True)
    with pytest.raises(ValueError, match=r"takes inputs that are torch\.float64"):
        core(torch.zeros(1, 2, 4))
    assert core(torch.zeros(1, 2, 4).double()).outputs.dtype == torch.float64


def test_parameters_that_stand_in_for_a_call():
    core = make_core("lstm", 4, hidden_size=3)
    core(torch.zeros(1, 2, 4))
    wide = {name: value.detach().double() for name, value in core.named_parameters()}
    output = torch.func.functional_call(core, wide, (torch.zeros(1, 2, 4).double(),))
    assert output.outputs.dtype == torch.float64
    assert core(torch.zeros(1, 2, 4)).outputs.dtype == torch.float32


def test_other_batch_sizes_in_turn():
    core = make_core("lstm", 4, hidden_size=3)
    for size in (2, 5, 2):
        core(torch.zeros(1, size, 4), core.initial_state(size))
        with pytest.raises(ValueError, match="hidden of LSTMCore must have the shape"):
            core(torch.zeros(1, size, 4), core.initial_state(size + 1))
    with pytest.raises(ValueError, match="must have 2 fields, got 1"):
        core(torch.zeros(1, 2, 4), tuple.__new__(LSTMState, [torch.zeros(2, 3)]))
