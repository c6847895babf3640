"""One maze behind Gymnasium's interface; :class:`MazeEnv`'s docstring is the rule book of all of them."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from mnm_rl.envs.rules import MazeRules, Mazes, Relocation, as_array
from mnm_rl.envs.streams import checked_seed, stream_from_generator
from mnm_rl.envs.vector import check_options, check_render_mode, render_mazes, with_episode_length

RENDER_MODES = ("human", "rgb_array", "ansi")


class MazeEnv(gymnasium.Env[NDArray[np.float32], np.integer | int]):
    """The invisible-goal maze of Miconi et al. (2018), used in Munkhdalai et al. (2019), section 4.3.

    ## Description

    An agent looks for a goal that it cannot see, in a maze that always looks the same. The goal stays where
    it is for a whole episode. Each time the agent reaches it, it is rewarded and put in a random place. To
    score well it must remember where the goal was, and find out from what it sees where it has been put.

    The maze has ``size`` x ``size`` interior cells with a wall around them. Positions are (row, column),
    counted from the corner of that wall, so the interior runs from 1 to ``size``. Where row and column are
    both even there is a pillar, except in the centre, which is always free (for sizes 3, 7, 11, ... a pillar
    would stand there). On 9x9 that makes 16 pillars and 65 free cells:

        ###########
        #.........#
        #.#.#.#.#.#
        #.........#
        #.#.#.#.#.#
        #....A....#
        #.#.#.#.#.#
        #.........#
        #.#.#.#.#.#
        #.........#
        ###########

    One step does this, in this order:

    1. The agent moves, or stays where it is and pays ``wall_reward`` if a wall is in the way.
    2. If its cell is now the goal, it earns ``goal_reward`` and is put on a random free cell.
    3. The clock moves on by one.

    ## Action Space

    ``Discrete(4)``

    | action | move  | change of (row, column) |
    |--------|-------|-------------------------|
    | 0      | up    | (-1, 0)                 |
    | 1      | down  | (+1, 0)                 |
    | 2      | left  | (0, -1)                 |
    | 3      | right | (0, +1)                 |

    ## Observation Space

    ``Box`` of float32, shape (11,), or (15,) with the previous action. The goal is not in it.

    | entry    | meaning                                                                  | range            |
    |----------|--------------------------------------------------------------------------|------------------|
    | 0 to 8   | the 3x3 neighbourhood after the step, row by row, 1 for a wall           | 0 or 1           |
    | 9        | the time, as a fraction: steps taken / ``horizon``                       | 0 to 1           |
    | 10       | the reward of the previous step, not scaled; 0 at the start              | -0.1 to 10       |
    | 11 to 14 | only with ``previous_action=True``: the previous action, one-hot in the  | 0 or 1           |
    |          | order of the table above; all 0 at the start                             |                  |

    ## Rewards

    ``goal_reward`` (+10) for a step that ends on the goal, ``wall_reward`` (-0.1) for a step against a wall,
    the sum of both (9.9) for a step that does both, and 0 for all others.

    ## Starting State

    The agent is in the centre. The goal is drawn uniformly from all free cells, the centre included. An agent
    that starts on the goal, or is put on it, is not rewarded for that: only the end of a step counts, so it
    has to bump into a wall there or leave and come back.

    ``relocation="2018"``, the default, is the rule of the code published with Miconi et al. (2018): the agent
    may be put on the goal. ``relocation="2019"`` is the rule of the code of Miconi et al. (2019): it is never
    put on the goal, and the goal is never in the centre.

    ## Episode End

    An episode lasts exactly ``horizon`` steps and is then *truncated*; it never terminates. The agent sees
    the clock and the horizon is part of the task, so a learner should not bootstrap from the value of the
    last observation; the papers do not.

    ## Info

    Empty, except on the last step of an episode: ``goal_visits``, the number of visits to the goal, and
    ``goal_position``, its row and column.

    ## Arguments

    | argument            | default  | meaning                                                            |
    |---------------------|----------|--------------------------------------------------------------------|
    | ``size``            | 9        | interior cells per side, odd, at least 3                           |
    | ``horizon``         | 200      | steps per episode, at least 1 and at most 2^53                     |
    | ``goal_reward``     | 10.0     | any number from -1e38 to 1e38                                      |
    | ``wall_reward``     | -0.1     | any number from -1e38 to 1e38                                      |
    | ``previous_action`` | False    | add the previous action to the observation                         |
    | ``relocation``      | "2018"   | "2018" or "2019", see Starting State                               |
    | ``render_mode``     | None     | "human" (a window), "rgb_array" (a picture) or "ansi" (a text)     |

    A ValueError in one sentence says which argument is wrong and what is allowed. The ids
    ``MNMMaze-3x3-v0``, ``-5x5-v0``, ... ``-13x13-v0`` set the size; without the version they mean the same.
    The other arguments go to ``gymnasium.make``:

        >>> import gymnasium, mnm_rl
        >>> env = gymnasium.make("MNMMaze-9x9-v0", horizon=100, previous_action=True)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape
        (15,)
        >>> observation, reward, terminated, truncated, info = env.step(0)
        >>> reward, terminated, truncated
        (0.0, False, False)

    For speed use many mazes at once: ``gymnasium.make_vec("MNMMaze-9x9-v0", num_envs=N)`` or, for
    Stable-Baselines3, :class:`MazeVecEnv`. Both play by the very same code, :mod:`mnm_rl.envs.rules`.

    ## Reference Scores

    Expected return of an episode of 200 steps on 9x9 with the default rewards, from
    :mod:`mnm_rl.envs.players`:

    | player                                                                     | 2018 rule | 2019 rule |
    |----------------------------------------------------------------------------|-----------|-----------|
    | uniformly random                                                           | 0.4       | 0.1       |
    | MNM after 250,000 episodes, as Munkhdalai et al. (2019) say in their text  | 175       |           |
    | belief player: knows the map, must find the goal and itself                | 228.1     | 227.3     |
    | bound for any player that is not told the goal                             | 233.4     | 232.6     |
    | oracle: knows goal and position (by goal: at least 246, at most 439)       | 329.9     | 324.2     |

    All but the second row are computed exactly.

    ## References

    - T. Miconi, J. Clune, K. O. Stanley: Differentiable plasticity. ICML 2018.
    - T. Miconi, A. Rawal, J. Clune, K. O. Stanley: Backpropamine. ICLR 2019.
    - T. Munkhdalai, A. Sordoni, T. Wang, A. Trischler: Metalearned neural memory. NeurIPS 2019.

    ## Version History

    - 0.1.0: first version. The ids carry no version; changes to the rules are listed here.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012
    _spec: EnvSpec | None = None

    def __init__(
        self,
        *,
        size: int = 9,
        horizon: int = 200,
        goal_reward: float = 10.0,
        wall_reward: float = -0.1,
        previous_action: bool = False,
        relocation: Relocation = "2018",
        render_mode: Literal["human", "rgb_array", "ansi"] | None = None,
    ) -> None:
        rules = MazeRules(size, horizon, goal_reward, wall_reward, previous_action, relocation)
        check_render_mode(render_mode, RENDER_MODES)
        self.mazes = Mazes(rules, 1)
        self.render_mode = render_mode
        self.observation_space = rules.observation_space
        self.action_space = rules.action_space
        self._stream_source: np.random.Generator | None = None
        self._window: Any = None

    @property
    def spec(self) -> EnvSpec | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Gymnasium's description, with the length of an episode."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = with_episode_length(spec, int(self.mazes.rules.horizon))

    @property
    def agent_position(self) -> tuple[int, int]:
        """Row and column of the agent, counted from the corner of the border wall."""
        return self._position(self.mazes.cell)

    @property
    def goal_position(self) -> tuple[int, int]:
        """Row and column of the goal, counted from the corner of the border wall."""
        return self._position(self.mazes.goal)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: restarts the random numbers; None goes on with them.
            options: not used.

        Returns:
            the observation, float32 ``[O]``, and an empty info.

        Raises:
            ValueError: the seed is not a whole number of at least 0.
            TypeError: the options are no dictionary.
        """
        check_options(options)
        super().reset(seed=None if seed is None else checked_seed(seed))
        if self.np_random is not self._stream_source:  # newly seeded, or replaced from outside
            self.mazes.stream[0] = stream_from_generator(self.np_random)
            self._stream_source = self.np_random
        self.mazes.begin_episodes()
        if self.render_mode == "human":
            self.render()
        return self.mazes.observations()[0], {}

    def step(self, action: np.integer | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one action: 0 up, 1 down, 2 left, 3 right.

        Returns:
            the observation, float32 ``[O]``, the reward, terminated (always False), truncated (True at the
            horizon), and the info: empty, but at the end of an episode ``goal_visits`` and ``goal_position``.

        Raises:
            ValueError: the action is not one of the four.
            gymnasium.error.ResetNeeded: no episode has begun, or the last one is over.
        """
        time, horizon = self.mazes.time.item(), self.mazes.rules.horizon
        if time >= horizon:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() before the next step().")
        reward = float(self.mazes.step(as_array(action).reshape(-1))[0])
        truncated = time + 1 >= horizon
        if self.render_mode == "human":
            self.render()
        return self.mazes.observations()[0], reward, False, truncated, self._info() if truncated else {}

    def render(self) -> Any:
        """A picture (uint8 ``[height, width, 3]``) or a text; None if a window shows it or without a mode."""
        if self.render_mode != "human":
            frames = render_mazes(self.mazes, self.render_mode)
            return frames[0] if frames else None
        from mnm_rl.envs.rendering import Window, render_frame

        self._window = self._window or Window(self.metadata["render_fps"])
        layout = self.mazes.rules.layout
        self._window.show(render_frame(layout, int(self.mazes.cell[0]), int(self.mazes.goal[0])))
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _position(self, cells: NDArray[np.intp]) -> tuple[int, int]:
        row, column = self.mazes.rules.layout.positions[cells[0]].tolist()
        return row, column

    def _info(self) -> dict[str, Any]:
        return {"goal_visits": int(self.mazes.goal_visits[0]), "goal_position": np.array(self.goal_position)}
