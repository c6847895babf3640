"""The C++ operators refuse what does not fit, in words: no crash, no silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnm_rl import make_core
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.kernels import build, cpu, scan
from mnm_rl.kernels.problem import MNMState, ScanResult

PERTURBATIONS = Path(__file__).parent / "native_perturbations.py"


@pytest.fixture(autouse=True)
def compiled() -> None:
    try:
        cpu.operators()
    except build.BuildError:
        pytest.skip("no C++ compiler")


@pytest.mark.parametrize(
    ("operator", "least"),
    [
        *(("settings", 60), ("pack", 300), ("scan_forward", 400), ("scan_backward", 700), ("activation", 8)),
        *(("lstm_forward", 200), ("lstm_backward", 350), ("gru_forward", 160), ("gru_backward", 260)),
        *(("lstm_step", 200), ("gru_step", 180), ("lstm_pack", 70), ("gru_pack", 70), ("draw", 40)),
        *(("ntm_forward", 300), ("ntm_backward", 600)),
        *(("dnc_forward", 150), ("dnc_rewrite", 180), ("dnc_backward", 350)),
        *(("fwm_forward", 150), ("fwm_backward", 250)),
        *(("pack_matrix", 9), ("packed_product", 50), ("outer_sum", 25)),
    ],
)
def test_every_spoiled_argument_is_refused(operator: str, least: int) -> None:
    command = [sys.executable, str(PERTURBATIONS), operator]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    *calls, last = result.stdout.splitlines()
    assert (result.returncode, last) == (0, "done"), f"{last}\n{result.stderr}"
    assert len(calls) >= least
    assert [call for call in calls if call.endswith(": nothing")] == []


def scan_directly(core: MNMCore, inputs: torch.Tensor, state: MNMState) -> ScanResult:
    """The kernel without the core's own check of what it is given."""
    return scan(core._scan_parameters(), core._scan_settings, inputs, state, None, core.initial_memory, "cpu")


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
def test_a_state_that_does_not_fit_is_a_value_error_with_one_sentence(name: str) -> None:
    core = make_core(name, 10, hidden_size=100, kernel="cpu")
    assert isinstance(core, MNMCore)
    state = core(torch.randn(5, 4, 10)).state
    inputs = torch.randn(5, 64, 10)
    with pytest.raises(
        ValueError, match=r"^state: hidden must have the shape \[64, 100\], not \[4, 100\]\.$"
    ):
        scan_directly(core, inputs, state)
    with pytest.raises(
        ValueError, match=r"^state: memory must have the shape \[4, 30000\], not \[30000\]\.$"
    ):
        scan_directly(core, inputs[:, :4], state._replace(memory=state.memory[0]))
    with pytest.raises(ValueError, match=r"^state: cell must be of type Float, not Double\.$"):
        scan_directly(core, inputs[:, :4], state._replace(cell=state.cell.double()))


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
@pytest.mark.parametrize(("batch", "inputs"), [(0, 3), (2, 0)])
def test_an_empty_batch_and_inputs_without_numbers_are_no_error(name: str, batch: int, inputs: int) -> None:
    found = {}
    for kernel in ("cpu", "torch"):
        torch.manual_seed(0)
        core = make_core(name, inputs, hidden_size=7, key_size=4, value_size=4, kernel=kernel)
        assert isinstance(core, MNMCore)
        given = (torch.randn(3, batch, inputs), core.initial_state(batch), None, core.initial_memory, kernel)
        result = scan(core._scan_parameters(), core._scan_settings, *given)
        (result.controls.sum() + result.meta_loss.sum()).backward()
        gradients = [p.grad for name, p in core.named_parameters() if not name.startswith("output")]
        found[kernel] = [result.controls, *result.state, *gradients]
    for one, two in zip(found["cpu"], found["torch"], strict=True):
        torch.testing.assert_close(one, two)
