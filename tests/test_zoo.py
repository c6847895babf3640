"""Runs ``zoo_trial.py`` in a process of its own: importing RL Zoo changes Gymnasium for everybody in it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


def test_rl_zoo_with_our_agents():
    if not all(importlib.util.find_spec(package) for package in ("rl_zoo3", "pandas")):
        pytest.skip("needs the extra zoo")
    trial = Path(__file__).with_name("zoo_trial.py")
    words = [sys.executable, "-m", "pytest", "-n", "0", "-q", str(trial)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
