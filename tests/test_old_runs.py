"""Runs that an earlier version stopped go on as that version would have gone on.

`old_runs/` has two, made at commit f0cb58b, before files and modules got the places that they have now: half
a run with its checkpoint, and in `expected.csv` the curve of the same run when it was not stopped.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.training.curves import read_curve

RUNS = Path(__file__).parent / "old_runs"


@pytest.mark.parametrize(
    ("name", "script", "length", "curve"),
    [
        ("supervised", "train_supervised", ("--iterations", "8"), "train.csv"),
        ("a2c", "train_a2c", ("--episodes", "16"), "progress.csv"),
    ],
)
def test_a_run_of_an_earlier_version_goes_on(run_script, tmp_path, name, script, length, curve):  # noqa: F811
    run = tmp_path / "run"
    shutil.copytree(RUNS / name, run)
    before = read_curve(run / curve)
    status, _, error = run_script(script, "--resume", run, *length, "--quiet", "--no-tensorboard")
    assert status == 0, error
    found, expected = read_curve(run / curve), read_curve(run / "expected.csv")
    (steps, *columns) = [column for column in expected if column != "seconds"]
    assert found[steps] == expected[steps]
    assert len(found[steps]) == 2 * len(before[steps])
    for column in columns:
        # To the last digit on the processor that made them.
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-3, atol=1e-5, err_msg=column)
