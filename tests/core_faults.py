"""Gives every core arguments with one thing wrong; run in a process of its own, which a crash would end.

The only outcome that is right is a ValueError or a TypeError, whatever the kernel, in sequences and in steps.
"""

from __future__ import annotations

import contextlib
import faulthandler
from typing import Any

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl.cores import make_core

MNM = dict(hidden_size=5, key_size=3, value_size=4, memory_widths=(5,), heads=2, recall_weights=(1.0, 0.5))
CORES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{name} {kernel}": (name, {**MNM, "kernel": kernel})
        for name in ("mnm-p", "mnm-g")
        for kernel in ("reference", "torch", "cpu")
    },
    "lstm": ("lstm", {"hidden_size": 5}),
    "gru": ("gru", {"hidden_size": 5}),
    "lstm-salu": ("lstm-salu", {"hidden_size": 5, "key_size": 3, "value_size": 4, "heads": 2}),
    "plastic": ("plastic", {"hidden_size": 5}),
    "fwm": ("fwm", {"hidden_size": 5, "entity_size": 3, "relation_size": 4}),
    "delta-net": ("delta-net", {"hidden_size": 5, "heads": 2, "key_size": 3, "value_size": 4}),
    "fast-weights": ("fast-weights", {"hidden_size": 5}),
    "ntm": ("ntm", {"hidden_size": 5, "slots": 6, "slot_size": 3, "heads": 2}),
    "tpr-rnn": ("tpr-rnn", {"hidden_size": 5, "entity_size": 4, "role_size": 3}),
    "entnet": ("entnet", {"hidden_size": 5, "slots": 3}),
    "dnc": ("dnc", {"hidden_size": 5, "slots": 6, "slot_size": 3, "read_heads": 2}),
    "sdnc": (
        "sdnc",
        {"hidden_size": 5, "slots": 6, "slot_size": 3, "read_heads": 2, "sparse_reads": 2, "sparse_links": 3},
    ),
}
STEPS, BATCH, INPUT_SIZE = 3, 4, 6
DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.complex64,
]


def change(draw: Any, tensor: Tensor) -> Any:
    """A tensor with one thing changed, or something else."""
    kind = draw(st.sampled_from(["size", "more", "fewer", "dtype", "device", "sparse", "other"]))
    if kind == "size":
        shape = list(tensor.shape)
        place = draw(st.integers(0, len(shape) - 1))
        shape[place] = draw(st.integers(0, 9))
        assume(shape != list(tensor.shape))
        return tensor.new_zeros(shape)
    if kind == "more":
        return tensor.unsqueeze(draw(st.integers(0, tensor.dim())))
    if kind == "fewer":
        return tensor.select(draw(st.integers(0, tensor.dim() - 1)), 0)
    if kind == "dtype":
        dtype = draw(st.sampled_from([torch.float32, torch.bool, *DTYPES]))
        assume(dtype != tensor.dtype)
        return tensor.to(dtype)
    if kind == "device":
        return tensor.to("meta")
    if kind == "sparse":
        return tensor.to_sparse()
    return draw(st.sampled_from([0, 1.5, "text", [], tensor.tolist(), tensor.numpy(), (tensor,)]))


@settings(
    max_examples=1200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(st.data())
def give_one_wrong_thing(data: Any) -> None:
    draw = data.draw
    name = draw(st.sampled_from(list(CORES)))
    core, inputs, state, resets = VALID[name]
    step, grad, acting = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    inputs, resets = (inputs[0], resets[0]) if step else (inputs, resets)
    place = draw(st.sampled_from(["inputs", "resets", "state", *state._fields]))
    if place == "inputs":
        inputs = None if draw(st.booleans()) and draw(st.booleans()) else change(draw, inputs)
    elif place == "resets":
        resets = change(draw, resets)
    elif place == "state":
        others = [other for _, _, other, _ in VALID.values() if type(other) is not type(state)]
        short = tuple.__new__(type(state), state[:-1])
        longer = tuple.__new__(type(state), [*state, state[0]])
        state = draw(
            st.sampled_from([*others, short, longer, tuple(state), list(state), state._asdict(), state[0], 0])
        )
    else:
        old = getattr(state, place)
        empty = draw(st.integers(0, 7)) == 0
        state = state._replace(**{place: None if empty else change(draw, old)})
    with torch.set_grad_enabled(grad), core.acting() if acting else contextlib.nullcontext():
        try:
            (core.step if step else core)(inputs, state, resets)
        except (ValueError, TypeError) as error:
            message = str(error)
            assert len(message.splitlines()) == 1, message
            assert "must" in message or "takes" in message, message
            return
    raise AssertionError(f"{name} accepts wrong {place}")


def valid(name: str, settings: dict[str, Any]) -> tuple[Any, Tensor, Any, Tensor]:
    torch.manual_seed(0)
    core = make_core(name, INPUT_SIZE, **settings)
    inputs, resets = torch.randn(STEPS, BATCH, INPUT_SIZE), torch.rand(STEPS, BATCH) < 0.3
    state = type(core.initial_state(1))(*[field.detach() for field in core(inputs).state])
    core(inputs, state, resets)
    core.step(inputs[0], state, resets[0])
    return core, inputs, state, resets


if __name__ == "__main__":
    faulthandler.enable()
    torch.set_num_threads(1)
    VALID = {key: valid(*choice) for key, choice in CORES.items()}
    give_one_wrong_thing()
    print("all refused")
