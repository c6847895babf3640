"""Cores of other packages: by name, by reference and as a class, in make_core, agents and figures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_core import NotACore, ToyConfig, ToyCore

import mnm_rl
from mnm_rl.agents import RecurrentA2C
from mnm_rl.agents.checkpoint import check_checkpoint
from mnm_rl.analysis.trace import record, require_memory
from mnm_rl.cores import (
    CORES,
    MemoryCore,
    core_name,
    core_names,
    core_settings,
    default_config,
    find_core,
    has_setting,
    make_core,
    register_core,
)
from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.reproduction.draw import COLOURS, OTHER_COLOURS, core_colour
from mnm_rl.reproduction.paper import core_label

REFERENCE = "toy_core:ToyCore"


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch):
    monkeypatch.setattr("mnm_rl.cores.registry.CORES", CORES)
    before = dict(CORES)
    yield
    CORES.clear()
    CORES.update(before)


class Abstract(MemoryCore):
    config_class = ToyConfig

    def initial_state(self, batch_size: int) -> Any:
        return ()


class WithoutConfig(ToyCore):
    config_class = dict


@dataclass(frozen=True)
class Demanding:
    width: int
    decay: float = 0.5


class DemandingCore(ToyCore):
    config_class = Demanding


def test_a_registered_core_is_built_by_its_name_with_its_fixed_settings():
    mnm_rl.register_core("toy", ToyCore)
    mnm_rl.register_core("toy-3", ToyCore, width=3)
    assert core_names()[-2:] == ("toy", "toy-3")
    assert core_settings("toy") == ["width", "decay"]
    assert core_settings("toy-3") == ["decay"]
    assert make_core("toy-3", 4, decay=0.1)(torch.zeros(2, 1, 4)).outputs.shape == (2, 1, 3)
    with pytest.raises(TypeError, match="Core 'toy-3' has no setting width; its settings: decay"):
        make_core("toy-3", 4, width=5)


@pytest.mark.parametrize("core", [REFERENCE, ToyCore])
def test_a_reference_or_a_class_stands_where_a_name_does(core):
    made = make_core(core, 4, width=3)
    assert isinstance(made, ToyCore)
    assert made.config == default_config(core, width=3) == ToyConfig(width=3)
    assert core_settings(core) == ["width", "decay"]
    assert core_name(core) == core_name(made) == REFERENCE
    with pytest.raises(TypeError, match=rf"Core '{REFERENCE}' has no setting heads; its settings: width"):
        make_core(core, 4, heads=1)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        make_core(core, 4, width=0)


def test_names_of_cores():
    register_core("toy", ToyCore, width=3)
    assert core_name("whatever") == "whatever"
    assert core_name(make_core("toy", 4)) == "toy"
    assert core_name(make_core(ToyCore, 4)) == REFERENCE
    assert [core_name(make_core(name, 4)) for name in core_names()] == list(core_names())
    assert core_name(MNMCore) == "mnm_rl.cores.mnm:MNMCore"
    assert find_core(core_name(MNMCore)) == (MNMCore, {})


def test_default_config_has_the_fixed_and_the_given_settings():
    assert default_config("mnm-g", heads=3) == MNMConfig(write_rule="gradient", heads=3)
    assert has_setting("mnm-p", "heads")
    assert not has_setting("lstm", "heads")
    assert not has_setting("mnm-p", "write_rule")


@pytest.mark.parametrize(
    ("arguments", "fixed", "error", "message"),
    [
        (("lstm", ToyCore), {}, ValueError, "'lstm' is taken by the core mnm_rl.cores.recurrent:LSTMCore"),
        (("mnm-p", MNMCore), {}, ValueError, "'mnm-p' is taken by the core mnm_rl.cores.mnm:MNMCore"),
        (("a:b", ToyCore), {}, ValueError, "must be a word without a colon, got 'a:b'"),
        (("", ToyCore), {}, ValueError, "must be a word without a colon, got ''"),
        ((5, ToyCore), {}, ValueError, "must be a word without a colon, got 5"),
        ((["toy"], ToyCore), {}, ValueError, "must be a word without a colon"),
        (("toy", NotACore), {}, TypeError, "toy_core:NotACore is not a core: a core is a class derived from"),
        (("toy", 3), {}, TypeError, "3 is not a core"),
        (("toy", ToyCore(4)), {}, TypeError, "is not a core"),
        (("toy", Abstract), {}, TypeError, "Abstract is abstract: it lacks forward"),
        (("toy", WithoutConfig), {}, TypeError, "WithoutConfig must name the dataclass of its settings"),
        (("toy", ToyCore), {"heads": 1}, TypeError, "Core 'toy' has no setting heads; its settings: width"),
        (("toy", ToyCore), {"width": 0}, ValueError, "width must be at least 1, got 0"),
        (("toy", ToyCore), {"width": "x"}, TypeError, "width must be a whole number, got 'x'"),
    ],
)
def test_what_cannot_be_registered_is_named(arguments, fixed, error, message):
    before = dict(CORES)
    with pytest.raises(error, match=message):
        register_core(*arguments, **fixed)
    assert before == CORES


def test_the_same_core_may_be_registered_again_also_defined_anew():
    def define() -> type[MemoryCore]:
        class Cell(ToyCore):
            pass

        return Cell

    register_core("cell", define())
    again = define()
    register_core("cell", again)
    assert isinstance(make_core("cell", 4), again)


def test_settings_without_default_are_asked_for():
    register_core("demanding", DemandingCore)
    with pytest.raises(TypeError, match=r"Core 'demanding' needs the setting width\."):
        make_core("demanding", 4)
    assert make_core("demanding", 4, width=3).output_size == 3


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("no_such_module:Core", ValueError, "cannot be imported: No module named 'no_such_module'"),
        ("toy_core:Nothing", ValueError, "cannot be imported: module 'toy_core' has no attribute 'Nothing'"),
        ("toy_core:", ValueError, "The core 'toy_core:' cannot be imported"),
        (":ToyCore", ValueError, "The core ':ToyCore' cannot be imported"),
        ("broken_module:Core", ValueError, r"cannot be imported: .*broken_module\.py, line 1"),
        ("toy_core:NotACore", TypeError, "toy_core:NotACore is not a core"),
        ("toy_core:torch", TypeError, "toy_core:torch is not a core"),
        ("mnm_rl.cores:MemoryCore", TypeError, "The core mnm_rl.cores:MemoryCore is abstract"),
    ],
)
def test_bad_references_are_named(reference, error, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("def:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=message):
        make_core(reference, 4)


def test_a_recorded_run_of_somebody_elses_core_has_its_name():
    require_memory(ToyCore)
    require_memory(REFERENCE, "hidden")
    with pytest.raises(ValueError, match=f"The core {REFERENCE} has a memory without read keys"):
        require_memory(ToyCore, "read_keys")
    assert record(ToyCore(3), torch.zeros(2, 1, 3)).metadata["core"] == REFERENCE


def agent(core: Any, **core_kwargs: Any) -> RecurrentA2C:
    kwargs = {"core": core, "core_kwargs": core_kwargs}
    return RecurrentA2C("MlpPolicy", "CartPole-v1", n_steps=4, seed=0, policy_kwargs=kwargs)


@pytest.mark.parametrize("core", [REFERENCE, ToyCore])
def test_an_agent_with_somebody_elses_core_is_saved_and_loaded(core, tmp_path):
    made = agent(core, width=3)
    assert made.policy.core_name == REFERENCE
    made.learn(8).save(tmp_path / "agent")
    for expected in (None, REFERENCE, ToyCore):
        loaded = RecurrentA2C.load(tmp_path / "agent", core=expected)
        assert isinstance(loaded.policy.core, ToyCore)
        for one, other in zip(made.policy.parameters(), loaded.policy.parameters(), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ValueError, match=f"was trained with core '{REFERENCE}', not 'lstm'"):
        RecurrentA2C.load(tmp_path / "agent", core="lstm")
    made.policy.save(tmp_path / "policy")
    assert isinstance(type(made.policy).load(tmp_path / "policy").core, ToyCore)


@pytest.mark.parametrize("core", [REFERENCE, ToyCore])
def test_an_agent_whose_core_cannot_be_imported_says_so(core, tmp_path):
    agent(core).save(tmp_path / "agent")
    code = (
        "import sys\nfrom mnm_rl.agents import RecurrentA2C\n"
        "try: RecurrentA2C.load(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    path = str(tmp_path / "agent.zip")
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "cannot be imported" in done.stdout
    assert "No module named 'toy_core'" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


def test_a_class_that_has_left_its_module_is_named(tmp_path, monkeypatch):
    agent(ToyCore).save(tmp_path / "agent")
    monkeypatch.delattr("toy_core.ToyCore")
    with pytest.raises(
        ValueError, match=r"with a class that cannot be imported here: Can't get attribute 'ToyCore'"
    ):
        check_checkpoint(Path(tmp_path / "agent"), trusted=True)


def test_an_agent_with_an_unknown_core_is_refused():
    with pytest.raises(TypeError, match="toy_core:NotACore is not a core"):
        agent(NotACore)
    with pytest.raises(TypeError, match="has no setting hidden_size"):
        agent(ToyCore, hidden_size=3)


def test_every_core_has_a_label_and_a_colour():
    assert core_label("mnm-p") == "MNM-p"
    assert core_label("somebodys") == "somebodys"
    assert core_label(REFERENCE) == "ToyCore"
    assert core_colour("mnm-p") == "tab:blue"
    colours = {core_colour(name) for name in core_names()}
    assert len(colours) == len(core_names()), "each of the project's cores has its own"
    others = [core_colour(f"core-{number}") for number in range(100)]
    assert others == [core_colour(f"core-{number}") for number in range(100)]
    assert set(others) == set(OTHER_COLOURS)
    assert not set(others) & set(COLOURS.values())
    code = f"from mnm_rl.reproduction.draw import core_colour; print(core_colour({REFERENCE!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == core_colour(REFERENCE)
