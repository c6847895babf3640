"""Calls one C++ operator with each of its arguments spoiled: a program of its own, as a fault may crash it.

    python tests/native_perturbations.py OPERATOR

Prints a line before each call, and what it raised, or ``nothing``, after it. The last line is ``done``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.kernels import cpu, recurrent

T, B, INPUTS = 3, 2, 5
CONFIG: dict[str, Any] = {
    "hidden_size": 6,
    "output_size": 2,
    "key_size": 4,
    "value_size": 3,
    "memory_widths": (7,),
    "heads": 2,
    "rate_per_layer": True,
    "recall_weights": (1.0, 0.5, 0.25),
    "kernel": "cpu",
}
Arguments = dict[str, Any]
OTHER_READS = ("dimension 2 longer", "dimension 2 shorter")
OTHER_STRIDES = ("every second", "transposed in memory", "one number for all")


def valid_arguments(write_rule: Any) -> dict[str, Arguments]:
    """Operator -> arguments of a call that is right."""
    torch.manual_seed(0)
    core = MNMCore(INPUTS, MNMConfig(write_rule=write_rule, **CONFIG))
    operators = cpu.operators()
    inputs, resets = torch.randn(T, B, INPUTS), torch.rand(T, B) < 0.3
    parameters = [p.detach() for p in core._scan_parameters() if p is not None]
    state = [field.detach().contiguous() for field in core.initial_state(B)]
    settings = cpu._settings_tensor(core._scan_settings)
    common = {
        "inputs": inputs,
        "parameters": parameters,
        "state": state,
        "initial_memory": core.initial_memory,
        "settings": settings,
    }
    packed = operators.pack(**common)
    forward = {**common, "resets": resets, "packed": packed, "new_memory": None, "save": True}
    controls, meta_loss, final, saved = operators.scan_forward(**forward)
    backward = {
        **common,
        "resets": resets,
        "saved": saved,
        "controls": controls,
        "final_memory": final[3],
        "d_controls": torch.ones_like(controls),
        "d_meta_loss": torch.ones_like(meta_loss),
        "d_state": [torch.ones_like(field) for field in final],
        "need_inputs": True,
        "need_memory": True,
    }
    forward["new_memory"] = torch.empty_like(state[3])
    return {
        "pack": common,
        "scan_forward": forward,
        "scan_backward": backward,
        "activation": {"values": torch.randn(11), "is_logistic": False},
    }


def valid_recurrent_arguments(kind: recurrent.Kind) -> dict[str, Arguments]:
    """The same for the operators of the LSTM or of the GRU."""
    torch.manual_seed(0)
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](INPUTS, 6)
    parameters = [parameter.detach() for parameter in layer.parameters()]
    state = [torch.randn(B, 6) for _ in range(2 if kind == "lstm" else 1)]
    common = {
        "inputs": torch.randn(T, B, INPUTS),
        "resets": torch.rand(T, B) < 0.3,
        "parameters": parameters,
        "state": state,
        "initial": [torch.randn(B, 6) for _ in state],
    }
    forward = {**common, "save": True}
    outputs, final, saved = getattr(cpu.operators(), f"{kind}_forward")(**forward)
    backward = {
        **common,
        "saved": saved,
        "outputs": outputs,
        "d_outputs": torch.ones_like(outputs),
        "d_state": [torch.ones_like(field) for field in final],
        "need_inputs": True,
        "need_parameters": True,
    }
    return {f"{kind}_forward": forward, f"{kind}_backward": backward}


def valid_acting_arguments(kind: recurrent.Kind) -> dict[str, Arguments]:
    """The same for the operators of single steps."""
    torch.manual_seed(0)
    cell = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[kind](INPUTS, 6)
    parameters = [parameter.detach() for parameter in cell.parameters()]
    step = {
        "inputs": torch.randn(B, INPUTS),
        "resets": torch.rand(B) < 0.3,
        "parameters": parameters,
        "packed": getattr(cpu.operators(), f"{kind}_pack")(parameters),
        "state": [torch.randn(B, 6) for _ in range(2 if kind == "lstm" else 1)],
    }
    draw = {"outputs": torch.randn(B, 6), "weight": torch.randn(4, 6), "bias": torch.randn(4)}
    return {f"{kind}_step": step, f"{kind}_pack": {"parameters": parameters}, "draw": draw}


def valid_ntm_arguments() -> dict[str, Arguments]:
    """The same for the operators of the neural Turing machine."""
    torch.manual_seed(0)
    D, H, N, W, S, pad = 6, 2, 5, 3, 3, cpu.vector_bytes() // 4
    told = 4 * H * W + 6 * H + 2 * H * S
    shapes = [(B, D), (B, D), (B, H, W), (B, 2 * H, N), (B, N, pad)]
    states = [[torch.rand(shape) for shape in shapes] for _ in range(2)]
    common = {
        "projected": torch.randn(T, B, 4 * D),
        "resets": torch.rand(T, B) < 0.3,
        "parameters": [torch.randn(4 * D, D + H * W), torch.randn(told, D), torch.randn(told)],
        "state": states[0],
        "initial": states[1],
    }
    forward = {**common, "save": True}
    controls, final, saved = cpu.operators().ntm_forward(**forward)
    backward = {
        **common,
        "saved": saved,
        "controls": controls,
        "d_controls": torch.ones_like(controls),
        "d_state": [torch.ones_like(field) for field in final],
    }
    return {"ntm_forward": forward, "ntm_backward": backward}


def valid_dnc_arguments() -> dict[str, Arguments]:
    """The same for the operators of the DNC's memory."""
    torch.manual_seed(0)
    slots, size, heads = 5, 3, 2
    vectors = [torch.rand(B, slots) / 5, torch.rand(B, slots) / 5, torch.rand(B, heads, slots) / 5]
    switches = {"read_heads": heads, "mask_minimum": 0.1, "deallocating": True, "usage_gradient": True}
    common = {
        "vector": torch.randn(B, 2 * (heads + 1) * size + 2 * size + (heads + 1) + heads + 2 + 3 * heads),
        "before": [*vectors, torch.rand(B, slots) / 5],
    }
    memory, link = torch.randn(B, slots, size), torch.rand(B, slots, slots) / 5
    forward = {**common, "memory": memory, "link": link, **switches}
    *after, read = cpu.operators().dnc_forward(**{**forward, "memory": memory.clone(), "link": link.clone()})
    stacked = [torch.stack([field, field]) for field in common["before"]]
    rewrite = {
        "vectors": torch.stack([common["vector"], common["vector"]]),
        "before": stacked,
        "written": stacked[1].clone(),
        "resets": torch.rand(2, B) < 0.5,
        "memories": torch.stack([memory] * 3),
        "links": True,
        **switches,
    }
    backward = {
        **common,
        "after": after[:3],
        "memory_before": memory,
        "memory": memory.clone(),
        "link": link,
        "precedence": stacked[3],
        "written": stacked[1].clone(),
        "resets": torch.rand(2, B) < 0.5,
        "number": 1,
        "d_read": torch.ones_like(read),
        "d_after": [torch.ones_like(field) for field in after],
        "d_memory": torch.ones_like(memory),
        "d_link": torch.ones_like(link),
        **switches,
    }
    return {"dnc_forward": forward, "dnc_rewrite": rewrite, "dnc_backward": backward}


def valid_fwm_arguments() -> dict[str, Arguments]:
    """The same for the operators of the fast weight memory."""
    torch.manual_seed(0)
    entity, relation, reads = 5, 3, 2
    shapes = ((entity,), (relation,), (entity,), (), (entity,), (reads, relation))
    commands = [torch.rand(B, T, *shape) for shape in shapes]
    memory = torch.rand(B, entity, relation, entity) / 9
    forward = {"commands": commands, "resets": torch.rand(B, T) < 0.3, "memory": memory, "save": True}
    read, last, copies, norms = cpu.operators().fwm_forward(**forward)
    backward = {key: value for key, value in forward.items() if key != "save"}
    backward |= {"copies": copies, "norms": norms}
    backward |= {"d_reads": torch.ones_like(read), "d_last": torch.ones_like(last)}
    return {"fwm_forward": forward, "fwm_backward": backward}


def valid_product_arguments() -> dict[str, Arguments]:
    """The same for the products of a time loop's weight."""
    torch.manual_seed(0)
    weight = torch.randn(5, 7)
    packed = cpu.operators().pack_matrix(weight)
    product = {"values": torch.randn(B, 5), "weight": weight, "packed": packed, "start": torch.randn(B, 7)}
    outer = {"left": torch.randn(6, 5), "right": torch.randn(6, 7)}
    return {"pack_matrix": {"weight": weight}, "packed_product": product, "outer_sum": outer}


def spoiled_tensors(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """What a tensor may be taken for."""
    yield "other type", tensor.double() if tensor.dtype != torch.float64 else tensor.float()
    yield "whole numbers", tensor.long()
    yield "meta", tensor.to("meta")
    yield "sparse", tensor.to_sparse()
    yield "no tensor", "text"
    if tensor.dtype == torch.float32:
        yield "complex", tensor.to(torch.complex64)
        yield "half", tensor.half()
        yield "negated view", torch._neg_view(tensor)  # pyright: ignore[reportPrivateImportUsage]
    yield "every second", torch.stack([tensor, tensor], -1)[..., 0]
    if tensor.dim() > 1:
        yield "transposed in memory", tensor.transpose(0, -1).contiguous().transpose(0, -1)
        yield "one dimension less", tensor[0]
        yield "one number for all", tensor[:1, :1].expand(tensor.shape[0], tensor.shape[1], *tensor.shape[2:])


def spoiled_shapes(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Tensors of another shape."""
    yield "one dimension more", tensor[None]
    yield "no dimension", tensor.new_zeros(())
    yield "flat and empty", tensor.new_zeros(0)
    for dim in range(tensor.dim()):
        for name, size in (
            ("longer", tensor.shape[dim] + 1),
            ("shorter", tensor.shape[dim] - 1),
            ("empty", 0),
        ):
            shape = list(tensor.shape)
            shape[dim] = size
            yield f"dimension {dim} {name}", tensor.new_zeros(shape)


def spoiled_settings(settings: Tensor) -> Iterator[tuple[str, Any]]:
    """Rows of numbers that are no settings, or those of another problem."""
    for place in range(len(settings)):
        is_weight = place >= len(settings) - len(CONFIG["recall_weights"])
        for value in (torch.nan, torch.inf, -torch.inf, *(() if is_weight else (-1.0, 0.5, 2.0**40, 1e300))):
            changed = settings.clone()
            changed[place] = value
            yield f"place {place} is {value}", changed
    for place in (0, 1, 2, 6, 7, 8):
        for step in (-1, 1):
            changed = settings.clone()
            changed[place] += step
            yield f"place {place} by {step}", changed
    for length in range(len(settings)):
        yield f"the first {length}", settings[:length].clone()
    yield "one more", torch.cat([settings, settings[-1:]])


def places(arguments: Arguments) -> Iterator[tuple[str, Any, Callable[[Any], Arguments]]]:
    """Each tensor of a call, also in lists: its name, itself, and the call with another in its place."""
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            yield name, value, lambda new, name=name: {**arguments, name: new}
        if isinstance(value, list):
            for i, tensor in enumerate(value):
                yield (
                    f"{name}[{i}]",
                    tensor,
                    lambda new, name=name, value=value, i=i: {
                        **arguments,
                        name: [*value[:i], new, *value[i + 1 :]],
                    },
                )


def is_right(operator: str, name: str, how: str, value: Any) -> bool:
    """What looks spoiled but is a call that must work."""
    shape = list(value.shape) if isinstance(value, Tensor) else []
    return (
        (operator == "pack" and name == "inputs" and how in ("dimension 0 longer", "dimension 0 shorter"))
        or (operator == "activation" and value is not None and "dimension" in how)
        or (operator == "activation" and how == "flat and empty")
        or (name == "d_state[3]" and shape == [0])  # stands for zeros
        or (operator.endswith("_pack") and name == "parameters[0]" and how.startswith("dimension 1"))
        or (operator == "draw" and name == "outputs" and how.startswith("dimension 0"))
        or (operator in ("draw", "pack_matrix") and how in OTHER_STRIDES)
        or (operator == "pack_matrix" and (how == "other type" or how.startswith("dimension")))
        or (operator == "packed_product" and name in ("weight", "start") and how in OTHER_STRIDES)
        or (operator == "packed_product" and name == "start" and how == "one dimension less")
        or (operator.startswith("fwm") and name == "commands[5]" and how in OTHER_READS)
        or (name == "norms" and how == "transposed in memory")  # has one column, which is no other order
        or (operator == "outer_sum" and how.startswith("dimension 1"))
    )


def spoiled_calls(operator: str, arguments: Arguments) -> Iterator[tuple[str, Arguments]]:
    """All spoiled calls of an operator."""
    for name, tensor, call in places(arguments):
        ways = [*spoiled_tensors(tensor), *spoiled_shapes(tensor)]
        if name == "settings":
            ways = [*spoiled_settings(tensor), *spoiled_tensors(tensor)]
        for how, value in ways:
            if not is_right(operator, name, how, value):
                yield f"{name}: {how}", call(value)
        if name not in ("resets", "new_memory", "start"):
            yield f"{name}: None", call(None)
    for name, value in arguments.items():
        if isinstance(value, list):
            if name != "initial" or len(value) > 1:
                yield f"{name}: one less", {**arguments, name: value[:-1]}
            yield f"{name}: one more", {**arguments, name: [*value, value[-1]]}
            if name not in ("packed", "initial"):  # without, the operator packs, or starts at zeros
                yield f"{name}: empty", {**arguments, name: []}
            if value[0].shape != value[-1].shape:  # else it is another call that is right
                yield f"{name}: reversed", {**arguments, name: value[::-1]}
    if operator.startswith("dnc"):
        for heads in (-1, 0, 1, 3, 2**40, 2**62):
            yield f"read_heads: {heads}", {**arguments, "read_heads": heads}
        for least in (None, -0.1, 1.0, torch.nan, torch.inf):
            yield f"mask_minimum: {least}", {**arguments, "mask_minimum": least}
    if operator == "dnc_backward":
        yield "d_link: the links", {**arguments, "d_link": arguments["link"]}
        for number in (-1, 2, 2**40):
            yield f"number: {number}", {**arguments, "number": number}
        yield "d_memory: the memory", {**arguments, "d_memory": arguments["memory"]}
    if operator == "scan_forward":
        memory = arguments["state"][3]
        yield "new_memory: the memory itself, for several steps", {**arguments, "new_memory": memory}
        both = torch.zeros(2 * memory.numel())
        state = [*arguments["state"]]
        state[3] = both[: memory.numel()].view(memory.shape)
        overlapping = both[1 : 1 + memory.numel()].view(memory.shape)
        step = {"inputs": arguments["inputs"][:1], "resets": None, "new_memory": overlapping, "state": state}
        yield "new_memory: overlaps", {**arguments, **step}


def spoiled_names() -> Iterator[tuple[str, Arguments]]:
    """Settings by name that are not right."""
    named = {
        "widths": [4.0, 7.0, 3.0],
        "heads": [2.0],
        "rates": [2.0],
        "write_rule": [0.0],
        "tanh_output": [0.0],
        "normalization": [0.0],
        "recall_weights": [1.0],
    }
    cpu.operators().settings(named)
    for name, numbers in named.items():
        yield f"no {name}", {"named": {key: value for key, value in named.items() if key != name}}
        for wrong in ([], [torch.nan], [torch.inf], [*numbers[:-1], -torch.inf], "text", None, 1.0):
            yield f"{name} is {wrong}", {"named": {**named, name: wrong}}
        if name != "recall_weights":
            for wrong in (-1.0, 0.5, 3.0 if len(numbers) == 1 and name != "heads" else -2.0, 2.0**40):
                yield f"{name} ends in {wrong}", {"named": {**named, name: [*numbers[:-1], wrong]}}
        if name not in ("recall_weights", "widths"):
            yield f"{name} twice", {"named": {**named, name: numbers * 2}}
    yield "one width", {"named": {**named, "widths": [4.0]}}
    yield "no width", {"named": {**named, "widths": [4.0, 0.0, 3.0]}}
    yield "one more", {"named": {**named, "more": [1.0]}}
    yield "none", {"named": {}}
    yield "no dictionary", {"named": [1.0]}


def print_calls(rule: str, run: Callable[..., Any], calls: Iterator[tuple[str, Arguments]]) -> None:
    """Make the calls; print what each of them raises."""
    for what, spoiled in calls:
        print(f"{rule}, {what}: ", end="", flush=True)
        try:
            run(**spoiled)
        except Exception as error:
            print(type(error).__name__, str(error).splitlines()[0])
        else:
            print("nothing")


def main(operator: str) -> None:
    """Print what each spoiled call raises."""
    run = getattr(cpu.operators(), operator)
    kind, _, what = operator.partition("_")
    makers: dict[str, Callable[[], dict[str, Arguments]]] = {
        "ntm": valid_ntm_arguments,
        "dnc": valid_dnc_arguments,
        "fwm": valid_fwm_arguments,
        "draw": lambda: valid_acting_arguments("lstm"),
        **dict.fromkeys(("pack", "packed", "outer"), valid_product_arguments),
    }
    of_layers = valid_acting_arguments if what in ("step", "pack") else valid_recurrent_arguments
    if kind in ("lstm", "gru", *makers) and operator != "pack":
        valid = makers[kind]() if kind in makers else of_layers(kind)  # pyright: ignore[reportArgumentType]
        arguments = valid[operator]
        run(**arguments)
        print_calls(kind, run, spoiled_calls(operator, arguments))
        print("done")
        return
    for rule in ("local",) if operator in ("settings", "activation") else ("local", "gradient"):
        if operator == "settings":
            calls = spoiled_names()
        else:
            arguments = valid_arguments(rule)[operator]
            run(**arguments)
            calls = spoiled_calls(operator, arguments)
        print_calls(rule, run, calls)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
