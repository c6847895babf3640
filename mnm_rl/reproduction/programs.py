"""The programs that make the runs of an experiment, each in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from mnm_rl.cores import core_config
from mnm_rl.reproduction.measure import MeasurementConfig
from mnm_rl.reproduction.trials import Program, ProgramName
from mnm_rl.tasks import task_options
from mnm_rl.training.folder import AGENT, MEASUREMENT, SUPERVISED
from mnm_rl.training.options import command_line, flat
from mnm_rl.training.rl import config as rl
from mnm_rl.training.supervised import config as supervised

QUIET = ("--quiet", "--no-tensorboard")
MNM_RL = (sys.executable, "-m", "mnm_rl")


def programs() -> dict[ProgramName, Program]:
    """All programs that make runs."""
    return {
        "supervised": Program(
            kind=SUPERVISED,
            command=(*MNM_RL, "train-supervised"),
            flags=QUIET,
            complete=_complete_supervised,
            words=lambda given: _words(supervised.SupervisedConfig, given),
            length_option="iterations",
            error=lambda settings: task_options(settings["task"]).task_class.decided_by,
            free=lambda settings: [f"task_options.{name}" for name in task_options(settings["task"]).free],
            tested=True,
        ),
        "a2c": Program(
            kind=AGENT,
            command=(*MNM_RL, "train-a2c"),
            flags=QUIET,
            complete=_complete_rl,
            words=lambda given: _words(rl.A2CConfig, given),
            length_option="episodes",
        ),
        "measurement": Program(
            kind=MEASUREMENT,
            command=(sys.executable, "-m", "mnm_rl.reproduction.measure"),
            flags=(),
            complete=lambda given: {**dataclasses.asdict(MeasurementConfig()), **given},
            words=lambda given: command_line(MeasurementConfig, given),
            length_option="rounds",
        ),
    }


def _complete_supervised(given: Mapping[str, Any]) -> dict[str, Any]:
    return flat(supervised.config_to_dict(supervised.config_from_dict(given)))


def _complete_rl(given: Mapping[str, Any]) -> dict[str, Any]:
    return flat(rl.config_to_dict(rl.config_from_dict(given)))


def _words(config: type, given: Mapping[str, Any]) -> list[str]:
    """Options of the command line for settings, those of the core and of the task included."""
    own = {name: value for name, value in given.items() if name not in ("core_settings", "task_options")}
    words = command_line(config, own)
    if "task_options" in given:
        words += command_line(task_options(given.get("task", "dictionary")), given["task_options"])
    if "core_settings" in given:
        words += command_line(core_config(given["core"])[0].config_class, given["core_settings"], "core.")
    return words
