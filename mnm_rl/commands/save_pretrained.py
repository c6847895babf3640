"""Make a model for others of a run: parameters and plain settings, no pickle, and a card with its score.

$ mnm-rl save-pretrained runs/MNMMaze-9x9-mnm-p-seed0 --to maze-agent
$ mnm-rl save-pretrained runs/MNMMaze-9x9-mnm-p-seed0 --in-place  # instead of its checkpoint
$ mnm-rl save-pretrained --shipped            # those that come with the package, from results/

The score on the card is that of an evaluation that this command runs; with --in-place there is none. Nothing
is uploaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from stable_baselines3.common.utils import set_random_seed

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.commands.parsing import parse_all
from mnm_rl.model_files.card import Card, Score
from mnm_rl.pretrained import MODELS_FOLDER, SHIPPED
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.folder import AGENTS, MODEL_FOLDER, SUPERVISED, RunKind, read_kind, run_directory
from mnm_rl.training.locks import hold_run
from mnm_rl.training.rl.agent import read_agent
from mnm_rl.training.rl.config import AgentConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.display import EpisodeCounter
from mnm_rl.training.rl.environments import is_maze, make_env
from mnm_rl.training.rl.evaluation import evaluate_agent
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.evaluation import describe_errors, load_run
from mnm_rl.training.supervised.pretrained import save_model
from mnm_rl.training.supervised.trainer import evaluate

EPISODES, SEED = 1000, 1_000_000
PARALLEL_MAZES, PARALLEL_OTHERS = 100, 16


@dataclass(frozen=True)
class Args:
    """What to make."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run, or a checkpoint in such a folder."""
    to: Path | None = None
    """Folder for the model; its name is the model's."""
    in_place: bool = False
    """Agents: put the model into the run's folder, as model/, and remove the checkpoint, which has the
    optimizer's state too. The run is evaluated and looked at as before; it does not go on any more."""
    what: str = ""
    """A sentence for its card: what it does."""
    episodes: int = EPISODES
    """Agents: episodes that are played for each score."""
    seed: int = SEED
    """Agents: of the episodes; training runs use seeds near 0."""
    shipped: bool = False
    """Make the models that come with the package anew, from the runs in results/."""
    results: Path = Path("results")
    """With --shipped: where the runs are."""
    models: Path = MODELS_FOLDER
    """With --shipped: where the models go."""
    trusted: bool = False
    """The run is your own or of somebody you trust: modules that it names are imported, and its files may run
    code."""
    threads: int = 1
    """Processor threads."""


def main(args: Args) -> None:
    """Make one model, or all that come with the package."""
    set_up_torch("cpu", args.threads)
    if args.episodes < 2:
        raise ValueError(f"episodes must be at least 2, got {args.episodes}.")
    if args.shipped:
        if args.run is not None or args.to is not None or args.what or args.in_place:
            raise ValueError(
                "--shipped makes known models of known runs; leave out the run, --to, --in-place and --what."
            )
        for name, shipped in SHIPPED.items():
            make_model(args, args.results / shipped.run, args.models / name, shipped.what)
        return
    if args.run is None or (args.to is None) == (not args.in_place):
        raise ValueError("Give a run, and either --to, the folder for its model, or --in-place.")
    if args.to is None:
        replace_checkpoint(args, args.run)
    else:
        make_model(args, args.run, args.to, args.what)


def replace_checkpoint(args: Args, run: Path) -> None:
    """Keep of an agent's run what it is evaluated by, and not what it would go on from."""
    kind, values = read_kind(run, args.trusted)
    if kind not in AGENTS or not run.is_dir():
        raise ValueError(f"--in-place is for the folder of an agent's run, and {run} is not one.")
    checkpoint = kind.checkpoint_of(run)
    if not checkpoint.is_file():
        raise ValueError(f"There is no checkpoint {checkpoint} to be replaced.")
    with hold_run(run):
        config = config_from_dict(values, kind)
        agent, before = read_agent(run, config, "cpu", args.trusted), checkpoint.stat().st_size
        card = Card(
            name=run.resolve().name, what=args.what, made_by=made_by(run), seed=config.seed, data=config.env
        )
        folder = run / MODEL_FOLDER
        agent.save_pretrained(folder, card, {"kind": kind.name, "config": config_to_dict(config)})
        # What was written is what is read from now on.
        read_agent(folder, config, "cpu", args.trusted)
        checkpoint.unlink()
    print(f"{folder}: {_size(folder) / 1e6:.2f} MB in place of {before / 1e6:.2f} MB")


def make_model(args: Args, run: Path, folder: Path, what: str) -> None:
    """Evaluate a run, and write its model."""
    kind, values = read_kind(run, args.trusted)
    if kind in AGENTS:
        _make_agent(args, run, folder, what, kind, values)
    elif kind is SUPERVISED:
        _make_supervised(args, run, folder, what)
    else:
        raise ValueError(f"{run} is a run of kind {kind.name}, which has no model.")
    print(f"{folder}: {_size(folder) / 1e6:.2f} MB")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _make_agent(
    args: Args, run: Path, folder: Path, what: str, kind: RunKind, values: dict[str, Any]
) -> None:
    config = config_from_dict(values, kind)
    agent = read_agent(run, config, "cpu", args.trusted)
    scores = [_score(args, agent, config, deterministic) for deterministic in (True, False)]
    card = Card(
        name=folder.name,
        what=what,
        made_by=made_by(run),
        seed=config.seed,
        data=config.env,
        evaluated_by=f"mnm-rl evaluate {folder.name} --episodes {args.episodes}",
        scores=scores,
    )
    agent.save_pretrained(folder, card, {"kind": kind.name, "config": config_to_dict(config)})


def _score(args: Args, agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, deterministic: bool) -> Score:
    """As ``mnm-rl evaluate`` plays."""
    env = make_env(config, min(args.episodes, PARALLEL_MAZES if is_maze(config.env) else PARALLEL_OTHERS))
    set_random_seed(args.seed)
    env.seed(args.seed)
    name = "most likely actions" if deterministic else "actions drawn"
    with EpisodeCounter(name, args.episodes) as counter:
        score = evaluate_agent(agent, env, args.episodes, deterministic, counter.count)
    env.close()
    print(f"{config.env}, {config.core}, {name}: {score.mean:.2f} +- {score.confidence:.2f}", flush=True)
    what = f"mean reward of {score.episodes:,} episodes, {name}"
    return Score(
        "mean_reward", what, score.mean, score.mean - score.confidence, score.mean + score.confidence
    )


def _make_supervised(args: Args, run: Path, folder: Path, what: str) -> None:
    config, task, model = load_run(run, args.trusted)
    counts = evaluate(model, task, "test")
    print(describe_errors(config, task, counts), flush=True)
    scores = [
        share(
            "error_rate",
            f"wrong among {counts.answers:,} answers of the test set",
            counts.wrong_answers,
            counts.answers,
        )
    ]
    if counts.symbols > counts.answers:
        symbols = f"wrong among their {counts.symbols:,} symbols, as if each were drawn by itself"
        scores.append(share("symbol_error_rate", symbols, counts.wrong_symbols, counts.symbols))
    about = config.options.describe()
    card = Card(
        name=folder.name,
        what=what,
        made_by=made_by(run),
        seed=config.seed,
        data=", ".join(filter(None, [config.task, about])),
        evaluated_by=f"mnm-rl evaluate {folder.name}{_data_option(config)}",
        scores=scores,
        notes=tuple(task.notes),
    )
    save_model(folder, config, task, model, card)


def _data_option(config: SupervisedConfig) -> str:
    """For tasks whose test set is read from files of the user's, without which the score is another."""
    return " --data PATH" if hasattr(config.options, "data") else ""


def share(kind: str, name: str, wrong: int, count: int) -> Score:
    """A fraction with Wilson's interval, which is one also where nothing is wrong."""
    z, rate = 1.96, wrong / count
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return Score(kind, name, rate, max(0.0, middle - half), min(1.0, middle + half))


def made_by(run: Path) -> str:
    """The commands on the page of a run, README.md; empty if it has none."""
    page = run_directory(run) / "README.md"
    text = page.read_text() if page.is_file() else ""
    _, _, rest = text.partition("## Made by")
    return rest.split("```")[1].strip() if rest.count("```") >= 2 else ""


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("save_pretrained.py"):
        main(parse_all(Args, __doc__))
