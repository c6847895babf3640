"""An agent that plays by itself: it keeps its recurrent state, and forgets where an episode starts.

Whoever only wants to play an exported agent needs neither torch nor Stable-Baselines3 for it: both are
imported only where an agent or its folder is given.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mnm_rl.model_files.onnx_names import FORMAT, FORMAT_KEY, PREFIX, observation_names
from mnm_rl.model_files.spaces import space_from_plain

if TYPE_CHECKING:
    from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm

State = tuple[NDArray[Any], ...]
NUMPY_TYPES = {"tensor(double)": "f8", "tensor(int64)": "i8", "tensor(int32)": "i4", "tensor(bool)": "?"}
"""Of a state in an ONNX file, where it is not float32."""


class _Actor(Protocol):
    """What takes a step of B environments."""

    def __call__(
        self, observation: Any, starts: NDArray[np.bool_], state: State | None
    ) -> tuple[NDArray[Any], State | None]: ...


class Player:
    """Steps an agent through episodes, in one environment or in several at once.

    ::

        player = Player.from_onnx("agent.onnx")
        observation, _ = env.reset()
        player.reset()
        while ...:
            observation, reward, terminated, truncated, _ = env.step(player.step(observation))
            if terminated or truncated:
                observation, _ = env.reset()
                player.reset()

    The vector environments of Stable-Baselines3 reset by themselves: call
    ``player.step(observations, dones)`` with the ``dones`` of the step before.

    Observations are those of the environment: statistics of ``VecNormalize`` are applied here. Images have
    the channels first, as the agent has them.

    Attributes:
        observation_space: the agent's.
        action_space: the agent's.
        state: the recurrent state after the last step, arrays ``[B, ...]``; ``None`` before the first.
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, actor: _Actor):
        self.observation_space, self.action_space = observation_space, action_space
        self.state: State | None = None
        self._actor = actor
        self._batch: int | None = None

    @classmethod
    def from_agent(cls, agent: RecurrentOnPolicyAlgorithm, deterministic: bool = True) -> Self:
        """A player of an agent, which goes on being its own.

        Args:
            agent: a RecurrentA2C or RecurrentPPO.
            deterministic: take the most likely action instead of drawing one.
        """
        from mnm_rl.agents.normalization import normalized_observation

        saved = agent.normalization()

        def act(observation: Any, starts: NDArray[np.bool_], state: State | None) -> tuple[Any, State | None]:
            return agent.predict(normalized_observation(observation, saved), state, starts, deterministic)

        return cls(agent.observation_space, agent.action_space, act)

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike, deterministic: bool = True, device: str = "cpu"
    ) -> Self:
        """A player of a model that comes with the package, or of a folder by ``agent.save_pretrained``.

        Raises:
            ValueError: there is no such model, it is damaged, or no agent.
        """
        from mnm_rl.pretrained import load_agent

        return cls.from_agent(load_agent(model, device), deterministic)

    @classmethod
    def from_onnx(cls, path: str | os.PathLike) -> Self:
        """A player of a file by ``agent.export``; it takes the most likely actions.

        Needs ``onnxruntime``, which ``pip install 'mnm-rl[onnx]'`` brings.

        Raises:
            ValueError: there is no such file, it is damaged, or not one of an agent of this package and
                format.
        """
        session = _session(path)
        observation_space, action_space = _checked_spaces(path, session)
        return cls(observation_space, action_space, _OnnxActor(session, observation_space, action_space))

    def reset(self) -> None:
        """Begin new episodes, in as many environments as the next observation is of."""
        self.state, self._batch = None, None

    def step(self, observation: Any, episode_start: Any = None) -> NDArray[Any]:
        """Act.

        Args:
            observation: one, or a batch ``[B, ...]``; for Dict spaces a dictionary.
            episode_start: ``[B]``, or one of True and False: where true the memory is emptied before. It is
                after :meth:`reset` in any case.

        Returns:
            the action as the environment takes it, or ``[B, ...]`` of them.

        Raises:
            ValueError: the observation is not one of the agent's, not finite, or of another number of
                environments than the last one.
        """
        batch, is_batch = _as_batch(observation, self.observation_space)
        count = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
        if self._batch not in (None, count):
            raise ValueError(
                f"The player is in the middle of {self._batch} episodes and is given {count} observations; "
                "call reset() first."
            )
        starts = _starts(episode_start, count, self._batch is None)
        action, self.state = self._actor(batch, starts, self.state)
        self._batch = count
        return action if is_batch else action[0]


class _OnnxActor:
    """Runs the graph; before the first step any state will do, because all episodes start."""

    def __init__(self, session: Any, observation_space: spaces.Space, action_space: spaces.Space):
        self._session, self._space = session, action_space
        self._names = observation_names(observation_space)
        self._states = session.get_inputs()[len(self._names) + 1 :]

    def __call__(
        self, observation: Any, starts: NDArray[np.bool_], state: State | None
    ) -> tuple[NDArray[Any], State | None]:
        parts = list(observation.values()) if isinstance(observation, dict) else [observation]
        inputs: dict[str, Any] = dict(zip(self._names, parts, strict=True))
        inputs["episode_start"] = starts
        for index, each in enumerate(self._states):
            shape = (len(starts), *each.shape[1:])
            dtype = NUMPY_TYPES.get(each.type, "f4")
            inputs[each.name] = np.zeros(shape, dtype) if state is None else state[index]
        action, _, *after = self._session.run(None, inputs)
        space = self._space
        if isinstance(space, spaces.Box) and space.dtype.kind != "f":
            action = np.rint(action).astype(space.dtype)
        return action, tuple(after)


def _session(path: str | os.PathLike) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            "from_onnx() needs onnxruntime, which is not installed: pip install 'mnm-rl[onnx]'."
        ) from error
    if not Path(path).is_file():
        raise ValueError(f"There is no ONNX file {path}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a step is too small to be shared
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime's errors have no common class.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{path} is not an ONNX file that can be run: {reason}") from error


def _checked_spaces(path: str | os.PathLike, session: Any) -> tuple[spaces.Space, spaces.Space]:
    """Observation and action space of an exported agent."""
    noted = session.get_modelmeta().custom_metadata_map
    if FORMAT_KEY not in noted:
        raise ValueError(f"{path} is not an agent that mnm-rl has exported: its metadata lack {FORMAT_KEY}.")
    if noted[FORMAT_KEY] != str(FORMAT):
        raise ValueError(
            f"The agent in {path} has the format {noted[FORMAT_KEY][:20]}; this version reads {FORMAT}."
        )
    try:
        found = [
            space_from_plain(json.loads(noted[f"{PREFIX}{name}"]))
            for name in ("observation_space", "action_space")
        ]
        wanted = [*observation_names(found[0]), "episode_start"]
        inputs = [each.name for each in session.get_inputs()]
        if inputs[: len(wanted)] != wanted or len(session.get_outputs()) != len(inputs) - len(wanted) + 2:
            raise ValueError(f"its inputs are {', '.join(inputs)[:100]}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"The agent in {path} is damaged: {error}.") from error
    return found[0], found[1]


def _as_batch(observation: Any, space: spaces.Space) -> tuple[Any, bool]:
    """An observation as arrays ``[B, ...]`` of the space's dtype, and whether it was a batch."""
    if not isinstance(space, spaces.Dict):
        return _part_as_batch(observation, space, "observation")
    if not isinstance(observation, dict) or set(observation) != set(space.spaces):
        raise ValueError(f"The observation must be a dictionary of {', '.join(map(repr, space.spaces))}.")
    parts = {
        key: _part_as_batch(observation[key], part, f"observation {key!r}")
        for key, part in space.spaces.items()
    }
    if len({len(part) for part, _ in parts.values()}) != 1 or len({many for _, many in parts.values()}) != 1:
        raise ValueError("The parts of the observation are not of the same number of environments.")
    return {key: part for key, (part, _) in parts.items()}, next(iter(parts.values()))[1]


def _part_as_batch(part: Any, space: spaces.Space, name: str) -> tuple[NDArray[Any], bool]:
    shape: Any = space.shape
    try:
        array = np.asarray(part)
        numbers = array.dtype.kind in "biuf"
    except ValueError:  # lists of different lengths
        numbers = False
    if not numbers:
        raise ValueError(
            f"The {name} must be numbers of the shape {list(shape)}, got a {type(part).__name__}."
        )
    if array.shape not in (shape, (*array.shape[:1], *shape)):
        raise ValueError(
            f"The {name} must have the shape {list(shape)}, or {['B', *shape]} for several environments, "
            f"got {list(array.shape)}; is it another agent's?"
        )
    array = array.astype(space.dtype, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"The {name} is not finite.")
    is_batch = array.shape != shape
    return (array if is_batch else array[None]), is_batch


def _starts(episode_start: Any, count: int, first: bool) -> NDArray[np.bool_]:
    starts = np.asarray(False if episode_start is None else episode_start)
    if starts.shape not in ((), (count,)) or starts.dtype.kind not in "biuf":
        raise ValueError(
            f"episode_start must be True or False for each of {count} observations, "
            f"got an array of {starts.dtype} of the shape {list(starts.shape)}."
        )
    return np.broadcast_to(starts.astype(bool) | first, count).copy()
