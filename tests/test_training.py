"""Guarded updates and atomic files."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mnm_rl.files import atomic_write
from mnm_rl.training.files import check_writable_directory, remove_partial_files
from mnm_rl.updates import GuardedOptimizer, NonFiniteError, clip_gradients


def guarded(patience=3, max_norm: float | None = 1.0):
    parameter = nn.Parameter(torch.tensor([3.0, 4.0]))
    return parameter, GuardedOptimizer(torch.optim.SGD([parameter], lr=1.0), [parameter], max_norm, patience)


def test_gradient_is_clipped_and_its_norm_reported():
    parameter, optimizer = guarded()
    info = optimizer.step(0.5 * parameter.square().sum(), "update 1")
    assert info.applied
    assert info.grad_norm == pytest.approx(5)
    torch.testing.assert_close(parameter.data, torch.tensor([2.4, 3.2]))


def test_without_limit_the_gradient_is_not_scaled():
    parameter, optimizer = guarded(max_norm=None)
    optimizer.step(0.5 * parameter.square().sum(), "update 1")
    torch.testing.assert_close(parameter.data, torch.zeros(2))


def test_a_gradient_whose_squares_are_too_large_for_their_type_is_clipped_as_any_other():
    # torch's own norm of such a gradient is infinite, and the run would skip this update for ever.
    parameter, optimizer = guarded()
    info = optimizer.step(1e25 * (parameter * torch.tensor([3.0, -4.0])).sum(), "update 1")
    assert info.applied
    assert info.grad_norm == pytest.approx(5e25)
    torch.testing.assert_close(parameter.data, torch.tensor([2.4, 4.8]))
    assert optimizer.skipped == 0


@given(
    st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=2, max_size=6),
    st.floats(1e-3, 1e3),
    st.sampled_from([0, 40, 75]),
)
def test_gradients_are_clipped_as_torch_clips_them(values, max_norm, exponent):
    """Scaled by a power of two, which changes nothing but the range."""
    tensors = torch.tensor(values[:1]), torch.tensor(values[1:])
    expected = [nn.Parameter(torch.zeros_like(each, dtype=torch.float64)) for each in tensors]
    found = [nn.Parameter(torch.zeros_like(each)) for each in tensors]
    for each, wide, narrow in zip(tensors, expected, found, strict=True):
        wide.grad, narrow.grad = each.double() * 2.0**exponent, each * 2.0**exponent
    norm = nn.utils.clip_grad_norm_(expected, max_norm)
    torch.testing.assert_close(clip_gradients(found, max_norm).double(), norm, rtol=1e-5, atol=1e-20)
    for wide, narrow in zip(expected, found, strict=True):
        assert wide.grad is not None
        assert narrow.grad is not None
        torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_the_norm_of_a_gradient_that_is_not_finite_is_not(value):
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1e25, value])
    assert not clip_gradients([parameter], 1.0).isfinite()
    assert clip_gradients([nn.Parameter(torch.zeros(2))], 1.0) == 0, "there is no gradient"


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_non_finite_numbers_never_reach_the_parameters(kind):
    parameter, optimizer = guarded()
    before = parameter.detach().clone()
    # The square root of zero is finite, its gradient is not.
    loss = parameter.sum() * torch.nan if kind == "loss" else (parameter - before).abs().sum().sqrt()
    assert torch.isfinite(loss) == (kind == "gradient")
    assert not optimizer.step(loss, "update 1").applied
    assert torch.equal(parameter, before)
    assert optimizer.skipped == 1


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_adam_takes_its_fused_form_which_differs_by_rounding(kind, steps_before):
    torch.manual_seed(0)
    start, target = torch.randn(2, 7, dtype=torch.float64)

    def train(*parts: tuple[bool, int]) -> torch.Tensor:
        parameter = nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.1)
        for fused, steps in parts:
            if fused:  # also of one that has made steps, as that of a run from before
                GuardedOptimizer(optimizer, [parameter], None)
                assert optimizer.param_groups[0]["fused"]
            for _ in range(steps):
                optimizer.zero_grad()
                (parameter - target).square().sum().backward()
                optimizer.step()
        return parameter.detach()

    plain, fused = train((False, 20)), train((False, steps_before), (True, 20 - steps_before))
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"fused": False}, {"foreach": True}, {"capturable": True}, {"differentiable": True}]
)
def test_what_was_said_of_the_form_of_adam_stays(settings):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], **settings)
    before = dict(optimizer.param_groups[0])
    GuardedOptimizer(optimizer, [parameter], None)
    assert optimizer.param_groups[0] == before


def test_other_optimizers_and_parameters_elsewhere_stay_as_they_are():
    elsewhere = nn.Parameter(torch.ones(2, device="meta"))
    adam = torch.optim.Adam([elsewhere])
    GuardedOptimizer(adam, [elsewhere], None)
    assert adam.param_groups[0]["fused"] is None
    assert guarded()[1].optimizer.param_groups[0]["fused"] is None


def test_many_skipped_updates_in_a_row_end_the_run_and_say_where():
    parameter, optimizer = guarded()
    for update in (1, 2):
        optimizer.step(parameter.sum() * torch.nan, f"update {update}")
    optimizer.step(parameter.sum(), "update 3")
    for update in (4, 5):
        optimizer.step(parameter.sum() * torch.nan, f"update {update}")
    restored = guarded()[1]
    restored.load_state_dict(optimizer.state_dict())
    with pytest.raises(NonFiniteError, match="3 times in a row, the last time at update 6"):
        restored.step(parameter.sum() * torch.nan, "update 6")
    assert restored.skipped == 5


def test_atomic_write_replaces_or_leaves_alone(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text({"half": "half"}["whole"])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
    (tmp_path / "plain.txt").touch()
    assert path.stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import sys, os, signal; from mnm_rl.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2
    remove_partial_files(tmp_path)
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    check_writable_directory(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Cannot write to the directory .*file"):
        check_writable_directory(tmp_path / "file")


def test_wrong_input_and_a_closed_pipe_end_a_script_without_a_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from mnm_rl.updates import NonFiniteError\n"
        "from mnm_rl.training.command_line import one_sentence_errors\n"
        "with one_sentence_errors('script.py'):\n"
        "    for _ in range(100_000):\n"
        "        print('a line')\n"
        "    raise {'bad': ValueError('No.'), 'lost': NonFiniteError('Lost.')}[sys.argv[1]]\n"
    )
    for word, status, message in (
        ("bad", 2, "script.py: No.\n"),
        ("lost", 1, "script.py: Lost. The last checkpoint stands.\n"),
    ):
        done = subprocess.run([sys.executable, script, word], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (status, message)
    with subprocess.Popen(
        [sys.executable, script, "bad"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1
