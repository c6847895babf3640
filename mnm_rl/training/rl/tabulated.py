"""MiniGrid-Memory from tables: the same episodes as the environment's own, many times as fast.

Nothing in MiniGrid-Memory moves but the agent: pick up acts as toggle there, and toggle does nothing to a
key or a ball. So an episode is one of a few layouts, of which the random numbers of a reset choose one, and
within it the agent's cell and direction are the whole state. :func:`tabulate` visits all of them in the real
environment once; :class:`TabulatedVecEnv` then looks up what happens.

Dimensions: ``N`` environments, ``S`` states, ``A`` actions, ``O`` observation size.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mnm_rl.training.options import parse_json_object
from mnm_rl.training.rl.minigrid import Mission, SymbolicVector

MEMORY_ID = re.compile(r"^MiniGrid-MemoryS\d+(Random)?-v\d+$")
STREAM_WORDS = 6
"""Numbers of 64 bits in the state of numpy's generator PCG64."""
WORD = 2**64
Place = tuple[int, tuple[int, int], int]
"""Number of the layout, cell and direction."""


def can_be_tabulated(env_id: str) -> bool:
    """Whether an id is one of MiniGrid-Memory's."""
    return MEMORY_ID.match(env_id) is not None


@dataclass(frozen=True)
class Draw:
    """A random number that a reset draws, from ``low`` to ``high - 1``, and what follows each value."""

    low: int
    high: int
    then: tuple[Draw | int, ...]
    """The next draw, or the state in which the episode starts."""


@dataclass(frozen=True)
class Table:
    """All that can happen in an environment."""

    start: Draw
    """How a reset chooses a state."""
    next_state: NDArray[np.int32]
    """``[S * A]``."""
    success: NDArray[np.bool_]
    """``[S * A]``: whether the step ends the episode with the reward of its time."""
    terminated: NDArray[np.bool_]
    """``[S * A]``."""
    rewards: NDArray[np.float64]
    """``[T + 1]``: reward of a success at each step, the first of which is 1."""
    observations: NDArray[np.float32]
    """``[S, O]``."""
    places: tuple[Place, ...]
    """Where the agent is in each state."""
    layouts: tuple[Any, ...]
    """The grids, for pictures."""
    observation_space: spaces.Box
    action_space: spaces.Discrete
    env: Any
    """The real environment, for pictures."""

    @property
    def most_steps(self) -> int:
        """After so many an episode is truncated."""
        return len(self.rewards) - 1


@lru_cache(maxsize=4)
def tabulate(
    env_id: str, env_kwargs: str = "{}", mission: Mission | None = None, direction: bool = False
) -> Table:
    """The table of an environment, made once in a process.

    Args:
        env_id: of MiniGrid-Memory.
        env_kwargs: its arguments, as JSON.
        mission: as for :class:`SymbolicVector`.
        direction: as for :class:`SymbolicVector`.

    Raises:
        ValueError: the environment cannot be made, or has a state beyond the agent's place.
    """
    import minigrid  # noqa: F401 - registers its environments

    arguments = parse_json_object(env_kwargs, "env_kwargs")
    try:
        wrapped = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True, **arguments)
        vector = SymbolicVector(wrapped, mission, direction)
    # The environment checks its arguments in its own way, or not at all.
    except Exception as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise ValueError(f"The environment {env_id!r} cannot be made: {reason}.") from error
    if wrapped.spec is not None and wrapped.spec.max_episode_steps is not None:
        raise ValueError("A tabulated environment takes max_steps, not max_episode_steps.")
    return _Explorer(vector).table()


class _Explorer:
    """Drives a real environment through everything that it can do.

    Args:
        vector: the environment.
    """

    def __init__(self, vector: SymbolicVector):
        self.vector = vector
        self.env: Any = vector.unwrapped
        self.states: dict[Place, int] = {}
        self.grids: list[Any] = []
        self.numbers: dict[bytes, int] = {}
        self.transitions: dict[tuple[int, int], tuple[int, bool, bool]] = {}

    def table(self) -> Table:
        """Visit everything."""
        start = self._draws([])
        assert isinstance(start, Draw)
        space: Any = self.vector.observation_space
        actions: Any = self.vector.action_space
        self._explore(int(actions.n))
        count = len(self.states) * int(actions.n)
        # From a state that ends the episode nothing follows: those entries are never looked up.
        next_state, success = np.zeros(count, np.int32), np.zeros(count, bool)
        terminated = np.zeros(count, bool)
        for (state, action), outcome in self.transitions.items():
            index = state * int(actions.n) + action
            next_state[index], success[index], terminated[index] = outcome
        rewards = np.array([self._reward_at(step) for step in range(self.env.max_steps + 1)])
        return Table(
            start=start,
            next_state=next_state,
            success=success,
            terminated=terminated,
            rewards=rewards,
            observations=np.stack([self._observation(place) for place in self.states]),
            places=tuple(self.states),
            layouts=tuple(self.grids),
            observation_space=space,
            action_space=actions,
            env=self.env,
        )

    def _draws(self, values: list[int]) -> Draw | int:
        """What a reset draws after it has drawn these values, or the state in which it then ends."""
        script = _Script(values)
        self.env._np_random = script
        try:
            self.env.reset()
        except _OneMore as more:
            low, high = more.bounds
            return Draw(low, high, tuple(self._draws([*values, value]) for value in range(low, high)))
        encoded = self.env.grid.encode().tobytes()
        if encoded not in self.numbers:
            self.numbers[encoded] = len(self.grids)
            self.grids.append(self.env.grid)
            # Where the right object stands, the environment keeps beside the grid.
            self.env.grid.ends = (tuple(self.env.success_pos), tuple(self.env.failure_pos))
        return self._state(self.numbers[encoded])

    def _state(self, layout: int) -> int:
        """The number of the state in which the environment is."""
        return self.states.setdefault(self._place(layout), len(self.states))

    def _place(self, layout: int) -> Place:
        x, y = self.env.agent_pos
        return layout, (int(x), int(y)), int(self.env.agent_dir)

    def _put(self, place: Place) -> None:
        put(self.env, self.grids[place[0]], place)

    def _explore(self, actions: int) -> None:
        """Take every action in every state that does not end the episode."""
        ended: set[int] = set()
        # What is seen is looked at once for each state, not at every step.
        self.env.gen_obs = lambda: None
        new = list(self.states.items())
        while new:
            place, state = new.pop(0)
            for action in range(actions if state not in ended else 0):
                self._put(place)
                _, reward, terminated, _, _ = self.env.step(action)
                known = len(self.states)
                following = self._state(place[0])
                self.transitions[state, action] = (following, reward > 0, bool(terminated))
                if terminated:
                    ended.add(following)
                if following == known:
                    new.append((self._place(place[0]), following))
            self._check_that_nothing_moved(place[0])
        del self.env.gen_obs

    def _check_that_nothing_moved(self, layout: int) -> None:
        moved = self.numbers.get(self.env.grid.encode().tobytes()) != layout
        if moved or self.env.carrying is not None:
            raise ValueError("This version of MiniGrid-Memory cannot be tabulated: things move in it.")

    def _observation(self, place: Place) -> NDArray[np.float32]:
        self._put(place)
        return self.vector.observation(self.env.gen_obs())

    def _reward_at(self, step: int) -> float:
        self.env.step_count = step
        return float(self.env._reward())


def put(env: Any, grid: Any, place: Place) -> None:
    """Bring a real environment into a state of the table."""
    env.grid, env.carrying, env.step_count = grid, None, 0
    env.success_pos, env.failure_pos = grid.ends
    _, env.agent_pos, env.agent_dir = place


class _OneMore(Exception):
    """A reset draws one more number than the script has."""

    def __init__(self, low: int, high: int):
        super().__init__()
        self.bounds = (low, high)


class _Script:
    """Stands in for an environment's random generator and gives the values that it is told.

    Args:
        values: in their order.
    """

    def __init__(self, values: Sequence[int]):
        self._values = iter(values)

    def integers(self, low: int, high: int) -> int:
        """The next value, as ``numpy.random.Generator.integers(low, high)`` would draw it."""
        for value in self._values:
            return value
        raise _OneMore(int(low), int(high))


class TabulatedVecEnv(VecEnv):
    """N environments of MiniGrid-Memory for Stable-Baselines3, played by their table.

    Environment i draws its layouts with the generator that the real one has when it is seeded with the same
    seed, so that it plays the very same episodes. The infos are those of a ``DummyVecEnv`` of monitored
    environments.

    Args:
        num_envs: N.
        table: what can happen.
        reward_scale: rewards are multiplied by it; the returns in the infos are not.
    """

    def __init__(self, num_envs: int, table: Table, reward_scale: float = 1.0):
        self.table = table
        self.render_mode = "rgb_array"
        self.state = np.zeros(num_envs, dtype=np.int64)
        self.time = np.zeros(num_envs, dtype=np.int64)
        self._rewards = (reward_scale * table.rewards).astype(np.float32)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._actions: NDArray[np.integer] | None = None
        self._created = time.time()
        super().__init__(num_envs, table.observation_space, table.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Start a new episode in every environment; the observations, ``[N, O]``."""
        for row, seed in enumerate(self._seeds):
            if seed is not None:
                self._generators[row] = seeding.np_random(seed)[0]
            self._begin(row)
        self._reset_seeds()
        self._reset_options()
        return self._observations()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions, ``[N]``, for :meth:`step_wait`."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict]]:
        """Take the step: observations ``[N, O]``, rewards, dones and infos, one for each environment."""
        actions, table = self._actions, self.table
        count = int(table.action_space.n)
        if actions is None:
            raise RuntimeError("call step_async(actions) before step_wait().")
        if actions.shape != (self.num_envs,) or ((actions < 0) | (actions >= count)).any():
            raise ValueError(f"actions must be {self.num_envs} whole numbers from 0 to {count - 1}.")
        index = self.state * count + actions
        self.state = table.next_state.take(index).astype(np.int64)
        self.time += 1
        success = table.success.take(index)
        rewards = np.where(success, self._rewards.take(self.time), np.float32(0))
        terminated = table.terminated.take(index)
        dones = terminated | (self.time >= table.most_steps)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        for row in np.flatnonzero(dones).tolist():
            infos[row] = self._last_info(row, bool(success[row]), bool(terminated[row]))
            self._begin(row)
        return self._observations(), rewards, dones, infos

    def close(self) -> None:
        """Do nothing: the table is shared."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides the future, as arrays with N rows; call it between two steps."""
        pending = [-1 if seed is None else seed for seed in self._seeds]
        return {
            "state": self.state.copy(),
            "time": self.time.copy(),
            "stream": np.array([_words_of(each) for each in self._generators], dtype=np.uint64),
            "pending_seed": np.array(pending, dtype=np.int64),
        }

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from a state that :meth:`get_state` returned.

        Raises:
            ValueError: it is not one of so many environments with this table; nothing is changed then.
        """
        shape = (self.num_envs,)
        found = {
            "state": _checked(state, "state", shape, len(self.table.places) - 1),
            "time": _checked(state, "time", shape, self.table.most_steps),
        }
        streams = _checked(state, "stream", (*shape, STREAM_WORDS), WORD - 1)
        seeds = _checked(state, "pending_seed", shape, 2**63 - 1, -1)
        vars(self).update({name: array.astype(np.int64) for name, array in found.items()})
        self._generators = [_generator_of(words) for words in streams.tolist()]
        self._seeds = [None if seed < 0 else seed for seed in seeds.tolist()]
        self._actions = None

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture for each environment, drawn by MiniGrid."""
        return [self._image(row) for row in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of this object, the same for all chosen environments."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: :meth:`set_state` sets the state.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"cannot set {attr_name!r} of a tabulated environment: use set_state().")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the chosen environments, of which there is ``render`` only.

        Raises:
            AttributeError: another method is asked for.
        """
        if method_name != "render":
            raise AttributeError(
                f"a tabulated environment has the method 'render' only, not {method_name!r}."
            )
        return [self._image(row) for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for ``Monitor``, whose info these environments give themselves, and False for the rest."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _begin(self, row: int) -> None:
        """Draw what a reset of the real environment draws."""
        node: Draw | int = self.table.start
        while isinstance(node, Draw):
            node = node.then[int(self._generators[row].integers(node.low, node.high)) - node.low]
        self.state[row], self.time[row] = node, 0

    def _last_info(self, row: int, success: bool, terminated: bool) -> dict[str, Any]:
        steps = int(self.time[row])
        total = float(self.table.rewards[steps]) if success else 0.0
        return {
            "terminal_observation": self.table.observations[self.state[row]].copy(),
            "TimeLimit.truncated": not terminated,
            # Rounded as by the monitor of other environments.
            "episode": {"r": round(total, 6), "l": steps, "t": round(time.time() - self._created, 6)},
        }

    def _observations(self) -> NDArray[np.float32]:
        return self.table.observations.take(self.state, axis=0)

    def _image(self, row: int) -> NDArray[np.uint8]:
        place = self.table.places[self.state[row]]
        put(self.table.env, self.table.layouts[place[0]], place)
        return self.table.env.render()


def _words_of(generator: np.random.Generator) -> list[int]:
    """The state of a generator in 64-bit numbers."""
    found: Any = generator.bit_generator.state
    state, increment = found["state"]["state"], found["state"]["inc"]
    wide = [part for number in (state, increment) for part in divmod(number, WORD)]
    return [*wide, found["has_uint32"], found["uinteger"]]


def _generator_of(words: Sequence[int]) -> np.random.Generator:
    """The inverse of :func:`_words_of`."""
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": words[0] * WORD + words[1], "inc": words[2] * WORD + words[3]},
        "has_uint32": words[4],
        "uinteger": words[5],
    }
    return np.random.Generator(bits)


def _checked(
    state: object, name: str, shape: tuple[int, ...], highest: int, lowest: int = 0
) -> NDArray[np.integer]:
    """An array of a state.

    Raises:
        ValueError: it is missing, of another shape or type, or something in it is out of range.
    """
    array: Any = np.asarray(state[name]) if isinstance(state, dict) and name in state else np.zeros(0)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"a state of {shape[0]} environments needs {name!r}, whole numbers of shape {shape}."
        )
    if array.size and not (lowest <= int(array.min()) and int(array.max()) <= highest):
        raise ValueError(f"the state is not of this environment: {name!r} must be up to {highest}.")
    return array
