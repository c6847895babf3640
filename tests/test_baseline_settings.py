"""Settings of the LSTM and of LSTM+SALU beyond their sizes."""

from typing import Any, cast

import pytest
import torch
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.cores import make_core, make_layers
from mnm_rl.testing import check_core
from mnm_rl.training.folder import SUPERVISED, load_state


def trace_of(core, steps: int = 6) -> dict[str, torch.Tensor]:
    inputs = torch.randn(steps, 3, core.input_size, generator=torch.Generator().manual_seed(1))
    trace = core(inputs, record=True).trace
    assert trace is not None
    return trace


@pytest.mark.parametrize("scale", [None, 0.1, 1.0, 7.0])
def test_products_of_keys_have_the_wanted_scale(scale):
    torch.manual_seed(0)
    core = make_core("lstm-salu", 2, hidden_size=5, key_size=4, value_size=3, heads=2, attention_scale=scale)
    trace = trace_of(core)
    keys, values, reads = trace["write_keys"], trace["write_values"], trace["read_keys"]
    for t in range(len(keys)):
        slots = keys[: t + 1].permute(1, 0, 2, 3).flatten(1, 2)
        stored = values[: t + 1].permute(1, 0, 2, 3).flatten(1, 2)
        weights = ((0.5 if scale is None else scale) * reads[t] @ slots.mT).softmax(2)
        torch.testing.assert_close(trace["read_values"][t], weights @ stored)


def test_keys_and_values_are_normalised_together():
    torch.manual_seed(0)
    core = make_core("lstm-salu", 2, hidden_size=5, key_size=4, value_size=3, layer_norm=True)
    trace = trace_of(core)
    vectors = torch.cat([trace[name] for name in ("read_keys", "write_keys", "write_values")], 3).atanh()
    torch.testing.assert_close(vectors.mean(3), torch.zeros(6, 3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.var(3, correction=0), torch.ones(6, 3, 1), atol=1e-2, rtol=0)


def lstm_of(core) -> torch.nn.Module:
    return core.layer if hasattr(core, "layer") else core.controller


def biases(core) -> torch.Tensor:
    """``[4, D]``, by gate."""
    both = [each for name, each in lstm_of(core).named_parameters() if name.startswith("bias")]
    assert len(both) == 2
    return (both[0] + both[1]).view(4, -1)


@pytest.mark.parametrize("name", ["lstm", "lstm-salu"])
def test_the_forget_gate_begins_with_the_given_bias_and_nothing_else_changes(name):
    torch.manual_seed(0)
    plain = make_core(name, 2, hidden_size=5)
    torch.manual_seed(0)
    biased = make_core(name, 2, hidden_size=5, forget_bias=1.5)
    assert biases(biased)[1].tolist() == [1.5] * 5
    for gate in (0, 2, 3):
        assert torch.equal(biases(biased)[gate], biases(plain)[gate])


@pytest.mark.parametrize("name", ["lstm", "lstm-salu"])
def test_the_gate_with_the_bias_is_the_one_that_keeps_the_cell(name):
    core = make_core(name, 2, hidden_size=5, forget_bias=100.0)
    with torch.no_grad():
        for parameter in lstm_of(core).parameters():
            if parameter.dim() == 1:
                others = torch.ones(4, 5, dtype=torch.bool)
                others[1] = False
                parameter[others.flatten()] = 0
            else:
                parameter.zero_()
    cell = torch.full((1, 5), 0.7)
    state = core.initial_state(1)._replace(cell=cell)
    torch.testing.assert_close(core.step(torch.zeros(1, 2), state)[1].cell, cell)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lstm", {"forget_bias": 1.0}),
        ("lstm-salu", {"attention_scale": 1.0, "layer_norm": True, "forget_bias": 1.0}),
    ],
)
def test_such_cores_keep_the_contract(name, settings):
    torch.manual_seed(0)
    check_core(lambda: make_core(name, 3, hidden_size=5, **settings))


@pytest.mark.parametrize(
    ("name", "settings", "error", "words"),
    [
        ("lstm", {"forget_bias": float("nan")}, ValueError, "forget_bias must be a finite number, got nan"),
        ("lstm-salu", {"forget_bias": float("inf")}, ValueError, "forget_bias must be a finite number"),
        ("lstm-salu", {"attention_scale": 0.0}, ValueError, "attention_scale must be a positive number, got"),
        ("lstm-salu", {"attention_scale": float("inf")}, ValueError, "attention_scale must be a positive"),
        ("gru", {"forget_bias": 1.0}, TypeError, "forget_bias"),
    ],
)
def test_what_is_not_allowed(name, settings, error, words):
    with pytest.raises(error, match=words):
        make_core(name, 2, **settings)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_so_many_layers_are_on_top_of_each_other(layers):
    core = make_layers("delta-net", 3, layers, hidden_size=8, heads=2, key_size=3, value_size=4, layers=2)
    made: list[Any] = [core] if layers == 1 else list(cast(Any, core).parts.values())
    assert [each.input_size for each in made] == [3, 8, 8][:layers]
    assert all(each.config.layers == 2 for each in made), "a setting of the core may have that name, too"


def test_layers_in_a_supervised_run(run_script, tmp_path):  # noqa: F811
    words = ["--task", "double-copy", "--core", "lstm", "--core-layers", "2", "--iterations", "2"]
    words += ["--validate-every", "2", "--batch-size", "2", "--core.hidden-size", "6", "--length", "2"]
    status, _, error = run_script("train_supervised", *words, "--log-dir", tmp_path / "run", "--quiet")
    assert (status, error) == (0, "")
    state = load_state(SUPERVISED.checkpoint_of(tmp_path / "run"), ("model",))["model"]
    assert {name.split(".")[2] for name in state if name.startswith("core.parts")} == {"layer0", "layer1"}
    assert run_script("evaluate", tmp_path / "run")[0] == 0
    status, _, error = run_script("train_supervised", "--core-layers", "0")
    assert status == 2
    assert "core_layers must be at least 1" in error
