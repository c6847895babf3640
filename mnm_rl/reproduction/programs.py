"""The programs that make the runs of an experiment, each in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mnm_rl.cores import core_config
from mnm_rl.reproduction.measure import MeasurementConfig
from mnm_rl.reproduction.rl.contrib import words as contrib_words
from mnm_rl.reproduction.trials import Program, ProgramName
from mnm_rl.tasks import task_options
from mnm_rl.training.folder import A2C_AGENT, CONTRIB, MEASUREMENT, PPO_AGENT, SUPERVISED, RunKind
from mnm_rl.training.options import command_line, flat
from mnm_rl.training.rl import config as rl
from mnm_rl.training.supervised import config as supervised

QUIET = ("--quiet", "--no-tensorboard")
MNM_RL = (sys.executable, "-m", "mnm_rl")
COMPARED = ("episodes", "seconds")
"""Columns that the comparison of cores needs beside the steps and the rewards, which a row may lack."""


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
            test_kinds=_is_of_answers,
            shown=lambda settings: ("answer_error" if _is_of_answers(settings) else "symbol_error",),
        ),
        "a2c": Program(
            kind=A2C_AGENT,
            command=(*MNM_RL, "train-a2c"),
            flags=QUIET,
            complete=lambda given: _complete_rl(given, A2C_AGENT),
            words=lambda given: _words(rl.A2CConfig, given),
            length_option="episodes",
            shown=lambda settings: ("reward",),
        ),
        "ppo": Program(
            kind=PPO_AGENT,
            command=(*MNM_RL, "train-ppo"),
            flags=QUIET,
            complete=lambda given: _complete_rl(given, PPO_AGENT),
            words=lambda given: [*_words(rl.PPOConfig, given), *_nothing_from_files()],
            length_option="timesteps",
            counted="timesteps",
            shown=lambda settings: COMPARED,
            gaps=("reward",),
        ),
        "sb3-contrib": Program(
            kind=CONTRIB,
            command=(sys.executable, "-m", "mnm_rl.reproduction.rl.contrib"),
            flags=(),
            complete=lambda given: _complete_rl(given, PPO_AGENT),
            words=contrib_words,
            length_option="timesteps",
            shown=lambda settings: COMPARED,
            gaps=("reward",),
        ),
        "measurement": Program(
            kind=MEASUREMENT,
            command=(sys.executable, "-m", "mnm_rl.reproduction.measure"),
            flags=(),
            complete=lambda given: {**dataclasses.asdict(MeasurementConfig()), **given},
            words=lambda given: command_line(MeasurementConfig, given),
            length_option="rounds",
            shown=lambda settings: ("seconds",),
            gaps=("peak_mebibytes",),
        ),
    }


def _nothing_from_files() -> list[str]:
    """Options that keep settings away that the trial does not name."""
    return ["--settings", "none"] if find_spec("mnm_rl.training.rl.settings_files") else []


def _is_of_answers(settings: Mapping[str, Any]) -> bool:
    """Whether a task is one of questions, whose answers count, and count apart for each kind of question."""
    return task_options(settings["task"]).task_class.decided_by == "answer_error"


def _complete_supervised(given: Mapping[str, Any]) -> dict[str, Any]:
    return flat(supervised.config_to_dict(supervised.config_from_dict(given)))


def _complete_rl(given: Mapping[str, Any], kind: RunKind) -> dict[str, Any]:
    return flat(rl.config_to_dict(rl.config_from_dict(given, kind)))


def _words(config: type, given: Mapping[str, Any]) -> list[str]:
    """Options of the command line for settings, those of the core and of the task included."""
    own = {name: value for name, value in given.items() if name not in ("core_settings", "task_options")}
    words = command_line(config, own)
    if "task_options" in given:
        words += command_line(task_options(given.get("task", "dictionary")), given["task_options"])
    if "core_settings" in given:
        words += command_line(core_config(given["core"])[0].config_class, given["core_settings"], "core.")
    return words
