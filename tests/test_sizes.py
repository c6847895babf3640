"""What no memory can hold is refused before anything is built; what fits is let through."""

import resource

import pytest
import torch
from gymnasium import spaces
from torch import nn

from mnm_rl import sizes
from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.cores import core_names, make_core
from mnm_rl.envs import MazeEnv, MazeVecEnv
from mnm_rl.sizes import check_fits, memory_bytes
from mnm_rl.state_dicts import state_dict_fault
from mnm_rl.training.rl.environments import EnvConfig, make_env
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer

GIB = 2**30
NOT_ENOUGH = "There is not enough memory for "


@pytest.fixture
def small_machine(monkeypatch):
    """A machine with 1 GiB."""
    monkeypatch.setattr(sizes, "memory_bytes", lambda: GIB)


def test_memory_is_what_the_process_may_use():
    there = memory_bytes()
    assert 2**28 < there < 2**50
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (there + 2**40, hard))
    try:
        assert memory_bytes() == there
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (2 * GIB, "2.0 GiB"),
        (1500 * GIB, "1.5 TiB"),
        (2.0**90, "TiB"),
        (float("inf"), "more than any machine"),
    ],
)
def test_a_refusal_says_how_much(needed, said, small_machine):
    with pytest.raises(ValueError, match=f"{NOT_ENOUGH}it: .*{said}.* would be needed, 1.0 GiB are there"):
        check_fits(needed, "it")


def test_what_fits_is_let_through(small_machine):
    check_fits(GIB, "it")


@pytest.mark.parametrize("name", core_names())
def test_cores_that_no_memory_holds(name):
    setting = {"hidden_size": 10**9}
    with pytest.raises(ValueError, match=rf"{NOT_ENOUGH}the core {name} with input_size 3 and hidden_size"):
        make_core(name, 3, **setting)
    with pytest.raises(ValueError, match=rf"{NOT_ENOUGH}the core {name} with input_size 1000000000000000"):
        make_core(name, 10**15)


def test_the_estimate_of_a_core_is_what_it_holds(small_machine):
    core = make_core("gru", 600, hidden_size=600)  # looked at, and let through
    assert sum(parameter.nbytes for parameter in core.parameters()) < GIB
    with pytest.raises(ValueError, match=NOT_ENOUGH):
        make_core("gru", 600, hidden_size=10_000)  # 3 * 10,000^2 numbers of 4 bytes: 1.1 GiB


@pytest.mark.parametrize("name", core_names())
def test_states_that_no_memory_holds(name):
    core = make_core(name, 3)
    with pytest.raises(ValueError, match=f"{NOT_ENOUGH}1000000000000 states of"):
        core.initial_state(10**12)
    with pytest.raises(ValueError, match="batch_size must not be negative"):
        core.initial_state(-1)
    with pytest.raises(TypeError, match="batch_size must be a whole number"):
        core.initial_state(1.5)  # pyright: ignore[reportArgumentType]
    assert len(core.initial_state(5000)[0]) == 5000


def test_rollouts_and_mazes_that_no_memory_holds():
    box, discrete = spaces.Box(0, 1, (10,)), spaces.Discrete(2)
    with pytest.raises(ValueError, match="a rollout with n_steps 1000000000000 and n_envs 3"):
        SequenceRolloutBuffer(10**12, box, discrete, n_envs=3)
    with pytest.raises(ValueError, match=f"{NOT_ENOUGH}a maze of size 9999999"):
        MazeEnv(size=9_999_999)
    with pytest.raises(ValueError, match=f"{NOT_ENOUGH}1000000000000 mazes"):
        MazeVecEnv(10**12)
    with pytest.raises(ValueError, match=f"{NOT_ENOUGH}n_envs 1000000000000"):
        make_env(EnvConfig(env="CartPole-v1"), 10**12)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"batch_size": 10**10}, "batches of 10000000000 sequences of 151 steps"),
        ({"embedding_size": 10**12}, "a first layer with embedding_size 1000000000000"),
        ({"task_options": {"length": 10**12}}, "batches of 250 sequences of 3000000000001 steps"),
    ],
)
def test_supervised_runs_that_no_memory_holds(change, what):
    config = SupervisedConfig(task="double-copy", core="lstm", **change)
    with pytest.raises(ValueError, match=NOT_ENOUGH + what):
        SupervisedTrainer(config, config.make_task(), None)


def test_saved_parameters_that_do_not_fit():
    module = nn.Linear(2, 3)
    state = module.state_dict()
    assert state_dict_fault(module, state) is None
    weight = state["weight"]
    for change, said in (
        ({"weight": torch.zeros(7, 7)}, r"its weight has the shape [7, 7] instead of [3, 2]"),
        ({"weight": weight.long()}, "its weight holds torch.int64 instead of torch.float32"),
        ({"weight": weight.cfloat()}, "its weight holds torch.complex64 instead of torch.float32"),
        ({"weight": weight.to("meta")}, "its weight holds no numbers"),
        ({"weight": weight * float("nan")}, "its weight is not finite"),
        ({"weight": 5}, "its weight is not a tensor but int"),
        ({"more": weight}, "it has more, which is not known here"),
    ):
        assert state_dict_fault(module, {**state, **change}) == said
    assert state_dict_fault(module, {"weight": weight}) == "it lacks bias"


def test_a_state_counts_where_the_parameters_fit(small_machine):
    sizes = {"key_size": 2, "value_size": 2, "memory_widths": (2,), "hidden_size": 4}
    assert make_core("mnm-p", 600, **sizes).input_size == 600
    # The plastic core has one trace for every pair of units, in the state as in its parameters.
    core = make_core("plastic-homogenous", 3, hidden_size=10)
    state_bytes = sum(field.nbytes for field in core.initial_state(1))
    parameter_bytes = sum(parameter.nbytes for parameter in core.parameters())
    width = 12_000  # weights alone 0.6 GiB, with the traces 1.1 GiB
    assert width**2 * 4 < GIB < 2 * width**2 * 4
    assert state_bytes >= 10 * 10 * 4 <= parameter_bytes
    with pytest.raises(ValueError, match=NOT_ENOUGH):
        make_core("plastic-homogenous", 3, hidden_size=width)
