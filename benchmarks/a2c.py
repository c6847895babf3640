"""Training steps per second of RecurrentA2C, beside sb3-contrib's RecurrentPPO and skrl's A2C_RNN.

    $ python benchmarks/a2c.py

All train an LSTM that policy and value share, with linear heads, on the same batched maze: as many steps and
environments per update, one pass over the rollout as a single batch, a reset where an episode ends. The
contenders take turns; each number is the median over the rounds. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from turns import Contender, print_rates, time_in_turns

from mnm_rl.agents import RecurrentA2C
from mnm_rl.envs import MazeVecEnv, MazeVectorEnv

GAMMA, VALUE_WEIGHT, GRAD_NORM, LEARNING_RATE = 0.9, 0.1, 4.0, 1e-3


@dataclass(frozen=True)
class Args:
    """Settings of the comparison."""

    n_envs: int = 16
    """Mazes played at once."""
    n_steps: int = 200
    """Steps per maze and update."""
    hidden_size: int = 100
    """Width of the LSTM."""
    updates: int = 10
    """Updates per round and contender, after one that does not count."""
    rounds: int = 5
    """Rounds; in each, the contenders take turns."""
    cores: tuple[str, ...] = ("mnm-p",)
    """Further cores of RecurrentA2C to time, with their default sizes."""
    threads: int = 1
    """Processor threads."""


def recurrent_a2c(args: Args, core: str, device: str = "cpu", **settings: Any) -> Contender:
    """The agent of this package."""
    agent = RecurrentA2C(
        "MlpPolicy",
        MazeVecEnv(args.n_envs),
        learning_rate=LEARNING_RATE,
        n_steps=args.n_steps,
        gamma=GAMMA,
        vf_coef=VALUE_WEIGHT,
        max_grad_norm=GRAD_NORM,
        policy_kwargs={"core": core, "core_kwargs": settings},
        seed=0,
        device=device,
    )
    return lambda updates: _void(agent.learn(updates * args.n_envs * args.n_steps, reset_num_timesteps=False))


def recurrent_ppo(args: Args) -> Contender:
    """sb3-contrib's RecurrentPPO with one epoch and one batch."""
    from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]

    agent = RecurrentPPO(
        "MlpLstmPolicy",
        MazeVecEnv(args.n_envs),
        learning_rate=LEARNING_RATE,
        n_steps=args.n_steps,
        batch_size=args.n_steps * args.n_envs,
        n_epochs=1,
        gamma=GAMMA,
        gae_lambda=1.0,
        vf_coef=VALUE_WEIGHT,
        max_grad_norm=GRAD_NORM,
        policy_kwargs={
            "lstm_hidden_size": args.hidden_size,
            "shared_lstm": True,
            "enable_critic_lstm": False,
            "net_arch": [],
        },
        seed=0,
        device="cpu",
    )
    return lambda updates: _void(agent.learn(updates * args.n_envs * args.n_steps, reset_num_timesteps=False))


def skrl_a2c(args: Args) -> Contender:
    """A2C_RNN of skrl; its model computes the LSTM once for both roles."""
    import skrl  # pyright: ignore[reportMissingImports]
    from skrl.agents.torch.a2c import A2C_RNN  # pyright: ignore[reportMissingImports]
    from skrl.envs.wrappers.torch import wrap_env  # pyright: ignore[reportMissingImports]
    from skrl.memories.torch import RandomMemory  # pyright: ignore[reportMissingImports]
    from skrl.trainers.torch import SequentialTrainer  # pyright: ignore[reportMissingImports]

    skrl.logger.setLevel(logging.ERROR)
    env: Any = wrap_env(
        MazeVectorEnv(args.n_envs, autoreset_mode="SameStep"), wrapper="gymnasium", verbose=False
    )
    model = _skrl_model(args, env)
    agent = A2C_RNN(
        models={"policy": model, "value": model},
        memory=RandomMemory(memory_size=args.n_steps, num_envs=args.n_envs, device="cpu"),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device="cpu",
        cfg={
            "rollouts": args.n_steps,
            "discount_factor": GAMMA,
            "gae_lambda": 1.0,
            "learning_rate": LEARNING_RATE,
            "grad_norm_clip": GRAD_NORM,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0, "directory": tempfile.gettempdir()},
        },
    )

    settings = {"headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    trainer = SequentialTrainer(env=env, agents=agent, cfg=settings)

    def train(updates: int) -> None:
        trainer.cfg.timesteps = updates * args.n_steps
        trainer.train()

    return train


def _skrl_model(args: Args, env: Any) -> Any:
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model  # pyright: ignore[reportMissingImports]

    class SharedLSTM(CategoricalMixin, DeterministicMixin, Model):
        """Policy and value with one LSTM, whose output the policy's call leaves for the value's call."""

        def __init__(self) -> None:
            Model.__init__(
                self, observation_space=env.observation_space, action_space=env.action_space, device="cpu"
            )
            CategoricalMixin.__init__(self)
            DeterministicMixin.__init__(self)
            self.lstm = torch.nn.LSTM(self.num_observations, args.hidden_size, batch_first=True)
            self.heads = torch.nn.ModuleDict(
                {
                    "policy": torch.nn.Linear(args.hidden_size, self.num_actions),
                    "value": torch.nn.Linear(args.hidden_size, 1),
                }
            )
            self.cached: tuple[torch.Tensor, list[torch.Tensor]] | None = None

        def get_specification(self) -> dict[str, Any]:
            size = (1, args.n_envs, args.hidden_size)
            return {"rnn": {"sequence_length": args.n_steps, "sizes": [size, size]}}

        def act(self, inputs: dict[str, Any], *, role: str = "") -> Any:
            kind = CategoricalMixin if role == "policy" else DeterministicMixin
            return kind.act(self, inputs, role=role)

        def compute(self, inputs: dict[str, Any], role: str = "") -> Any:
            if role == "policy":
                self.cached = self.run(inputs)
                output, states = self.cached
            else:
                output, states = self.cached or self.run(inputs)
                self.cached = None
            return self.heads[role](output), {"rnn": list(states)}

        def run(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            observations, states = inputs["observations"], inputs["rnn"]
            if not self.training:
                output, states = self.lstm(observations.unsqueeze(1), tuple(states))
                return output.squeeze(1), list(states)
            sequences = observations.view(-1, args.n_steps, self.num_observations)
            ended = (inputs["terminated"] | inputs["truncated"]).view(-1, args.n_steps)
            return self.run_sequences(sequences, ended, [state[:, :: args.n_steps] for state in states])

        def run_sequences(
            self, sequences: torch.Tensor, ended: torch.Tensor, states: list[torch.Tensor]
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            cuts = (ended[:, :-1].any(0).nonzero().flatten() + 1).tolist()
            outputs, state = [], tuple(part.contiguous() for part in states)
            for start, stop in zip([0, *cuts], [*cuts, args.n_steps], strict=True):
                if start:
                    state = tuple(part * ~ended[:, start - 1, None] for part in state)
                output, state = self.lstm(sequences[:, start:stop], state)
                outputs.append(output)
            return torch.cat(outputs, 1).flatten(0, 1), list(state)

    return SharedLSTM()


def _void(_: object) -> None:
    """Drop what learn() returns."""


def main(args: Args) -> None:
    """Time all contenders and print a table."""
    torch.set_num_threads(args.threads)
    own = f"RecurrentA2C, lstm-{args.hidden_size}"
    contenders: dict[str, Contender] = {own: recurrent_a2c(args, "lstm", hidden_size=args.hidden_size)}
    for name, build in (("sb3-contrib RecurrentPPO", recurrent_ppo), ("skrl A2C_RNN", skrl_a2c)):
        try:
            contenders[name] = build(args)
        except ImportError as error:
            print(f"{name} is left out ({error}); pip install -e '.[bench]' gets it.", file=sys.stderr)
    contenders.update({f"RecurrentA2C, {core}": recurrent_a2c(args, core) for core in args.cores})
    per_update = args.n_envs * args.n_steps
    rates = time_in_turns(contenders, args.updates, args.rounds, per_update)
    title = f"{args.n_envs} mazes, {args.n_steps} steps per update, {args.threads} thread(s)"
    print_rates(title, rates, own)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
