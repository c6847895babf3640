"""Look into the memory of a trained run: Figure 5 of the paper, a forgetting curve, or an agent in the maze.

$ mnm-rl analyze results/babi/all-tasks-mnm-p --task-number 2 --story 11 --out analysis
$ mnm-rl analyze results/babi/task-1-mnm-p --text "Mary went to the kitchen . Where is Mary ?"
$ mnm-rl analyze results/babi/all-tasks-mnm-p --supports 100
$ mnm-rl analyze results/maze/highest --out analysis
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from matplotlib.figure import Figure

from mnm_rl.analysis import Trace, recall_errors, record, require_memory, similarities
from mnm_rl.analysis.episodes import Episode, describe_answer, held_out_episode, text_episode, typical_batch
from mnm_rl.analysis.forgetting import DELAYS
from mnm_rl.analysis.maze.report import NUMBERS_FILE, analyze_agent
from mnm_rl.analysis.pictures import MAPS, draw_forgetting, draw_question, draw_story_end
from mnm_rl.analysis.supports import HEADING, describe_shares, support_shares
from mnm_rl.commands.parsing import parse_all
from mnm_rl.cores import reads_sentences
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.files import atomic_write
from mnm_rl.pretrained import shipped_folder
from mnm_rl.tasks import Task
from mnm_rl.tasks.babi import BabiTask, parse_tasks
from mnm_rl.tasks.babi.options import BabiOptions
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.files import check_writable_directory
from mnm_rl.training.folder import AGENTS, SUPERVISED, read_kind
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict
from mnm_rl.training.supervised.evaluation import load_run
from mnm_rl.training.supervised.model import SequenceModel

FORGETTING_SEQUENCES = 64
OF_BABI = ("text", "supports", "task_number", "data")
OF_SUPERVISED = ("story", "story_words", "end_words", *OF_BABI)
OF_AGENTS = ("episodes", "seed")
STORY_WORDS, END_WORDS = 80, 24


@dataclass(frozen=True)
class Args:
    """What to look at."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run or of a model, or a checkpoint in such a folder; or the name of a model that comes with
    the package, such as maze-highest."""
    out: Path = Path("analysis")
    """Folder for the pictures and the trace."""
    story: int | None = None
    """Number of a question (or episode) of the test set, from 1 on; 1 if nothing else is asked for."""
    task_number: int | None = None
    """bAbI: count the questions of this task only."""
    text: str | None = None
    """bAbI: a story of your own with a question at its end; see --story for those of the test set."""
    supports: int | None = None
    """bAbI, instead of pictures: over so many test questions of each task, how often the value read when the
    answer is due is most like one written in a supporting sentence. Takes --task-number."""
    story_words: int | None = None
    """The most words of a story in a picture, counted from its end; 80 if not given."""
    end_words: int | None = None
    """The most words that count as the end of a story; 24 if not given."""
    data: str | None = None
    """bAbI: folder or archive with the official files, if not where the run found them."""
    episodes: int | None = None
    """The maze: how many episodes are watched; 256 if not given."""
    seed: int | None = None
    """The maze: of the episodes; 1,000,000 if not given, training runs use seeds near 0."""
    trusted: bool = False
    """The run is your own or of somebody you trust: modules that it names are imported, and its files may run
    code, as Stable-Baselines3's can."""
    threads: int = 1
    """Processor threads."""


def main(args: Args) -> None:
    """Find out what kind of run it is."""
    set_up_torch("cpu", args.threads)
    args = replace(args, run=shipped_folder(args.run))
    kind, values = read_kind(args.run, args.trusted)
    if kind in AGENTS:
        analyze_agent_run(args)
    elif kind is SUPERVISED:
        analyze_supervised(args, values)
    else:
        raise ValueError(f"{args.run} is a run of kind {kind.name}; there is nothing to look at.")


def analyze_agent_run(args: Args) -> None:
    """Pictures of an agent in the maze."""
    _refuse(args, OF_SUPERVISED, "supervised runs", "an agent's")
    given = {name: getattr(args, name) for name in OF_AGENTS if getattr(args, name) is not None}
    for path, what in analyze_agent(args.run, args.out, trusted=args.trusted, **given).items():
        print(f"{path}: {what}")
    print(f"\n{(args.out / NUMBERS_FILE).read_text()}", end="")


def analyze_supervised(args: Args, values: dict[str, Any]) -> None:
    """Pictures of one sequence of the run's task, or numbers over many of bAbI's questions."""
    config = config_from_dict(values)
    _refuse(args, OF_AGENTS, "agents", "a supervised one")
    _check(args, config)
    if reads_sentences(config.core):
        raise ValueError(
            f"The core {config.core} reads sentences; there is nothing to look at yet but cores of words."
        )
    changes = {} if args.data is None else {"data": args.data}
    config, task, model = load_run(args.run, args.trusted, **changes)
    assert isinstance(model, SequenceModel)
    for note in task.notes:
        print(f"Note: {note}")
    if args.supports is not None:
        _print_supports(args, config, task, model)
        return
    episode = _choose_episode(args, task)
    if not episode.question:
        raise ValueError(f"The {episode.name} has a single step; there is nothing that it could remember.")
    with torch.no_grad():
        trace = record(model.core, model.encoder(episode.batch.inputs))
        logits = model.head(trace["outputs"])
    model_name = config.core if config.task == "babi" else f"{config.core}, {config.task}"
    title = f"{model_name}, {episode.name}: {describe_answer(task, episode, logits)}"
    print(title)
    _print_most_similar(trace, episode)
    args.out.mkdir(parents=True, exist_ok=True)
    trace.save(args.out / "trace.pt")
    for name, figure in _figures(args, task, model, trace, episode, title):
        path = args.out / f"{name}.png"
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=130)
        print(path)


def _check(args: Args, config: SupervisedConfig) -> None:
    require_memory(config.core, "read_values", "write_values", "write_keys")
    if config.task != "babi":
        _refuse(args, OF_BABI, "runs on bAbI", f"one on {config.task}")
    elif args.task_number is not None and args.task_number not in _babi_tasks(config):
        tasks = ", ".join(map(str, _babi_tasks(config)))
        raise ValueError(f"The run has no bAbI task {args.task_number}; its tasks: {tasks}.")
    chosen = [name for name in ("story", "text", "supports") if getattr(args, name) is not None]
    if len(chosen) > 1 or (args.text is not None and args.task_number is not None):
        raise ValueError("Give one of --story, --text and --supports; --task-number does not go with --text.")
    for name in ("supports", "story_words", "end_words"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(args, name)}.")
    for name in ("story", "story_words", "end_words"):
        if args.supports is not None and getattr(args, name) is not None:
            raise ValueError(f"--supports prints numbers, for which {name} means nothing.")
    if args.supports is None:
        check_writable_directory(args.out)


def _babi_tasks(config: SupervisedConfig) -> tuple[int, ...]:
    assert isinstance(config.options, BabiOptions)
    return parse_tasks(config.options.tasks)


def _refuse(args: Args, options: tuple[str, ...], meant_for: str, kind: str) -> None:
    """Make sure that options that mean nothing for this kind of run are not given."""
    for option in options:
        if getattr(args, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise ValueError(f"{flag} is for {meant_for}; {args.run} is {kind}.")


def _choose_episode(args: Args, task: Task) -> Episode:
    if args.text is not None:
        assert isinstance(task, BabiTask)
        return text_episode(task.vocabulary, args.text)
    return held_out_episode(task, 1 if args.story is None else args.story, "test", args.task_number)


def _print_most_similar(trace: Trace, episode: Episode) -> None:
    """For every word of the question the story's word at which the most similar value was written."""
    start = episode.question
    cosines = similarities(trace["read_values"][start:], trace["write_values"][:start])[0]
    for word, row in zip(episode.words[start:], cosines, strict=True):
        step = int(row.argmax())
        like = f"{episode.words[step]:12} ({row[step]:.2f}, word {step + 1})"
        print(f"  read at {word:12} most like written at {like}")


def _figures(
    args: Args, task: Task, model: SequenceModel, trace: Trace, episode: Episode, title: str
) -> Iterator[tuple[str, Figure]]:
    """File names and pictures."""
    words = args.story_words or STORY_WORDS
    sizes = (words, args.end_words or END_WORDS, title)
    yield "question", draw_question(trace, episode, "together", words, title)
    yield "story-end", draw_story_end(trace, episode, MAPS, "together", *sizes)
    if trace["read_values"].shape[2] > 1:
        yield "question-heads", draw_question(trace, episode, "separately", words, title)
        for one in MAPS:
            figure = draw_story_end(trace, episode, [one], "separately", *sizes)
            yield f"story-end-heads-{one.name}", figure
    if isinstance(model.core, MNMCore):
        batch = typical_batch(task, FORGETTING_SEQUENCES, "test")
        trace = record(model.core, model.encoder(batch.inputs))
        delays = [tau for tau in DELAYS if tau < int(batch.lengths.max())]
        forgetting = recall_errors(model.core, trace, delays, present=batch.present)
        count = len(batch.lengths)
        print(f"Recall of what was written, {count} test sequences:")
        for tau, error, cosine in zip(delays, *forgetting, strict=True):
            later = "step later" if tau == 1 else "steps later"
            print(f"  {tau:3} {later}: relative squared error {error:.2f}, cosine {cosine:.2f}")
        yield "forgetting", draw_forgetting(delays, forgetting, f"{args.run}, {count} test sequences")


def _print_supports(args: Args, config: SupervisedConfig, task: Task, model: SequenceModel) -> None:
    assert isinstance(task, BabiTask)
    tasks = _babi_tasks(config) if args.task_number is None else (args.task_number,)
    print(HEADING)
    for number in tasks:
        print(describe_shares(support_shares(model, task, number, args.supports or 1)), flush=True)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("analyze.py"):
        main(parse_all(Args, __doc__))
