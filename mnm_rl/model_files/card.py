"""The card of a model, README.md: a head that Hugging Face reads, and what a reader wants to know.

It is made without a network; to upload the folder is up to its owner (``hf upload NAME FOLDER``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mnm_rl.model_files.folder import CARD_FILE

LIBRARY = "mnm-rl"


@dataclass(frozen=True)
class Score:
    """A number that an evaluation has given, with its 95% confidence interval."""

    kind: str
    """Such as ``mean_reward``."""
    name: str
    """In words, such as "mean reward of 1,000 episodes, most likely actions"."""
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Card:
    """What a card says. All of it is optional; what is not known is not mentioned."""

    name: str = ""
    """Of the model."""
    what: str = ""
    """A sentence or two: what it does."""
    made_by: str = ""
    """The commands that made it."""
    seed: int | None = None
    """That it was trained with."""
    data: str = ""
    """What the scores are of: id of an environment, or name of a task."""
    evaluated_by: str = ""
    """The command that gave the scores."""
    scores: Sequence[Score] = field(default_factory=tuple)
    """The one that decides first."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What has to be said about the data, such as that parts of them are synthetic."""


def card_text(card: Card, task: str, tags: Sequence[str], use: str) -> str:
    """README.md of a model.

    Args:
        card: what is known of it.
        task: in the terms of Hugging Face, such as ``reinforcement-learning``.
        tags: further ones.
        use: a few lines of Python.
    """
    head: dict[str, Any] = {"library_name": LIBRARY, "license": "mit"}
    head["tags"] = [LIBRARY, task, *(tag for tag in tags if tag not in (LIBRARY, task))]
    if card.scores:
        metrics = [
            {"type": each.kind, "name": f"{each.name}, 95% interval {each.low:.4g} to {each.high:.4g}"}
            | {"value": round(each.value, 6)}
            for each in card.scores
        ]
        data = card.data or "unknown"
        result = {
            "task": {"type": task, "name": task},
            "dataset": {"type": data.partition(",")[0], "name": data},
            "metrics": metrics,
        }
        head["model-index"] = [{"name": card.name or "model", "results": [result]}]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join(["---", front.rstrip(), "---", "", *_body(card, use)])


def _body(card: Card, use: str) -> list[str]:
    lines = [f"# {card.name or 'A model of mnm-rl'}", ""]
    if card.what:
        lines += [card.what, ""]
    lines += ["## Score", ""]
    if card.scores:
        lines += ["| | mean | 95% interval |", "|---|---|---|"]
        lines += [
            f"| {each.name} | {each.value:.4g} | {each.low:.4g} to {each.high:.4g} |" for each in card.scores
        ]
        lines += ["", f"Printed by `{card.evaluated_by}`.", ""] if card.evaluated_by else [""]
    else:
        lines += ["No evaluation was made for this card.", ""]
    if card.notes:
        lines += [*(f"- {note}" for note in card.notes), ""]
    lines += ["## Use it", "", "```python", use.strip(), "```", ""]
    if card.made_by or card.seed is not None:
        lines += ["## Made by", ""]
        lines += ["```", card.made_by.strip(), "```", ""] if card.made_by else []
        lines += (
            [f"Seed {card.seed}: one run, so no spread over seeds is known.", ""]
            if card.seed is not None
            else []
        )
    lines += ["The parameters are `model.safetensors`, all settings `config.json`; nothing is pickled.", ""]
    return lines


def read_score(folder: str | os.PathLike) -> tuple[str, float]:
    """The first score on the card of a model: its name and value.

    Raises:
        ValueError: there is no card, or no score on it.
    """
    path = Path(folder) / CARD_FILE
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The model in {folder} has no card {CARD_FILE} that could be read.") from error
    try:
        head = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
        metric = head["model-index"][0]["results"][0]["metrics"][0]  # pyright: ignore[reportOptionalSubscript]
        name, value = str(metric["name"]), float(metric["value"])
    except (yaml.YAMLError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The card {path} has no score; give save_pretrained() a card with one, or load the model with "
            "from_pretrained()."
        ) from error
    if not math.isfinite(value):
        raise ValueError(f"The score on the card {path} is not a finite number.")
    return name, value
