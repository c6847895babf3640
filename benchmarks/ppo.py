"""Training steps per second of RecurrentPPO, beside sb3-contrib's.

    $ python benchmarks/ppo.py
    $ python benchmarks/ppo.py --env popgym-RepeatPreviousEasy-v0

The same environments, rollouts, minibatches and epochs for all; the contenders take turns, and each number is
the median over the rounds. sb3-contrib's is timed with one LSTM for policy and value, as all cores here are,
and as it comes, with one for each. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from stable_baselines3.common.env_util import make_vec_env
from turns import Contender, print_rates, time_in_turns

from mnm_rl.agents import RecurrentPPO

SMALL_MNM = {"hidden_size": 64, "key_size": 32, "value_size": 32, "memory_widths": (32, 32)}


@dataclass(frozen=True)
class Args:
    """Settings of the comparison."""

    env: str = "CartPole-v1"
    """Gymnasium id; popgym is imported for those that begin with its name."""
    n_envs: int = 16
    """Environments played at once."""
    n_steps: int = 128
    """Steps per environment and update."""
    n_epochs: int = 4
    """How often a rollout is learned from."""
    batch_size: int = 512
    """Steps in a minibatch."""
    hidden_size: int = 64
    """Width of LSTM and GRU."""
    updates: int = 3
    """Updates per round and contender, after one that does not count."""
    rounds: int = 5
    """Rounds; in each, the contenders take turns."""
    threads: int = 1
    """Processor threads."""


def contender(args: Args, algorithm: Callable[..., Any], policy_kwargs: dict[str, Any]) -> Contender:
    """An agent on environments of its own."""
    agent = algorithm(
        "MlpLstmPolicy",
        make_vec_env(args.env, args.n_envs, seed=0),
        n_steps=args.n_steps,
        batch_size=args.batch_size,
        n_epochs=args.n_epochs,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )

    def train(updates: int) -> None:
        agent.learn(updates * args.n_envs * args.n_steps, reset_num_timesteps=False)

    return train


def main(args: Args) -> None:
    """Time all contenders and print a table."""
    torch.set_num_threads(args.threads)
    if args.env.startswith("popgym"):
        importlib.import_module("popgym")
    width = {"hidden_size": args.hidden_size}
    cores = {f"lstm-{args.hidden_size}": ("lstm", width), f"gru-{args.hidden_size}": ("gru", width)}
    contenders = {
        f"ours, {name}": contender(args, RecurrentPPO, {"core": core, "core_kwargs": settings})
        for name, (core, settings) in {**cores, "mnm-p 64/32": ("mnm-p", SMALL_MNM)}.items()
    }
    try:
        from sb3_contrib import RecurrentPPO as TheirPPO  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"sb3-contrib is left out ({error}); pip install -e '.[bench]' gets it.", file=sys.stderr)
    else:
        lstm = {"lstm_hidden_size": args.hidden_size}
        shared = {**lstm, "shared_lstm": True, "enable_critic_lstm": False}
        contenders["sb3-contrib, one LSTM"] = contender(args, TheirPPO, shared)
        contenders["sb3-contrib, as it comes"] = contender(args, TheirPPO, lstm)
    rates = time_in_turns(contenders, args.updates, args.rounds, args.n_envs * args.n_steps)
    title = f"{args.env}, {args.n_envs} x {args.n_steps} steps per update, {args.threads} thread(s)"
    print_rates(title, rates, f"ours, lstm-{args.hidden_size}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
