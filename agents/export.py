"""An agent's acting step as an ONNX file, with resets and the normalisation of observations inside.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from mnm_rl.agents.acting_step import ActingStep
from mnm_rl.agents.arguments import check_path, one_line
from mnm_rl.agents.normalization import DEFAULTS
from mnm_rl.files import atomic_write
from mnm_rl.model_files.folder import library_version
from mnm_rl.model_files.onnx_names import FORMAT, FORMAT_KEY, PREFIX, observation_names
from mnm_rl.model_files.spaces import space_to_plain

LARGEST_BATCH = 4096
"""Cores estimate the memory that larger batches need, which a graph cannot."""


class ExportedStep(nn.Module):
    """``(*observations, episode_start, *state) -> (action, value, *state)``, of observations as they are.

    Args:
        agent: whose policy acts; with statistics of ``VecNormalize``, these are applied first.
    """

    def __init__(self, agent: Any):
        super().__init__()
        self.step = ActingStep(agent.policy)
        space = agent.observation_space
        self.keys = list(space.spaces) if isinstance(space, spaces.Dict) else None
        saved = {**DEFAULTS, **(agent.normalization() or {"norm_obs": False})}
        statistics = saved.get("obs_rms") if saved["norm_obs"] else None
        self._clip, self._normalised = float(saved.get("clip_obs", np.inf)), []
        parts: dict[Any, Any] = statistics if isinstance(statistics, dict) else {None: statistics}
        for index, key in enumerate(self.keys or [None]):
            part = parts.get(key)
            if part is not None:
                # As VecNormalize does, in double precision.
                self.register_buffer(f"mean_{index}", torch.tensor(part.mean))
                self.register_buffer(f"spread_{index}", torch.tensor(np.sqrt(part.var + saved["epsilon"])))
                self._normalised.append(index)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Act; arguments and results as in :class:`~mnm_rl.agents.acting_step.ActingStep`, side by side."""
        count = 1 if self.keys is None else len(self.keys)
        observations = [self._normalise(index, part) for index, part in enumerate(tensors[:count])]
        observation = (
            observations[0] if self.keys is None else dict(zip(self.keys, observations, strict=True))
        )
        return self.step(observation, *tensors[count:])

    def _normalise(self, index: int, part: Tensor) -> Tensor:
        if index not in self._normalised:
            return part
        mean, spread = getattr(self, f"mean_{index}"), getattr(self, f"spread_{index}")
        return ((part.double() - mean) / spread).clamp(-self._clip, self._clip).float()


def export_agent(agent: Any, path: Any) -> None:
    """Write the file; see :meth:`mnm_rl.agents.resumable.ResumableAlgorithm.export`.

    Raises:
        ValueError: the core cannot be exported, the file cannot be written, or ONNX is not installed.
    """
    check_path(path)
    if Path(path).suffix != ".onnx":
        raise ValueError(f"The name of an ONNX file must end in .onnx, got {str(path)!r}.")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "export() needs ONNX, which is not installed: pip install 'mnm-rl[onnx]'."
        ) from error
    agent.policy.check_parameters()
    content = _graph(agent)
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ValueError(f"The file {path} cannot be written: {error.strerror or error}.") from error


def _graph(agent: Any) -> bytes:
    """The file's content."""
    step = ExportedStep(agent).to("cpu")
    state = step.step.initial_state(2)
    names = observation_names(agent.observation_space)
    observations = [_example(part) for part in _parts(agent.observation_space)]
    example = (*observations, torch.tensor([True, False]), *state)
    batch = torch.export.Dim("batch", max=LARGEST_BATCH)
    fields = type(agent.policy.initial_state(1))._fields
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                step,
                example,
                dynamo=True,
                custom_translation_table=_translations(),
                verbose=False,
                input_names=[*names, "episode_start", *(f"state.{name}" for name in fields)],
                output_names=["action", "value", *(f"state_after.{name}" for name in fields)],
                dynamic_shapes=(tuple({0: batch} for _ in example),),
            )
            program.model.metadata_props.update(_metadata(agent))
            return program.model_proto.SerializeToString()
    # Which errors the exporter raises for what it does not know is its own affair.
    except Exception as error:
        reason = one_line(error.__cause__ or error)[:300]
        raise ValueError(
            f"The core {agent.policy.core_name!r} cannot be exported to ONNX: {reason}."
        ) from error


def _translations() -> dict[Any, Any]:
    """Operations of cores that the exporter does not know."""
    import onnxscript

    op: Any = onnxscript.opset18

    def sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        # Of equals TopK takes the first first, as a stable sort does.
        size = op.Reshape(op.Gather(op.Shape(self), dim, axis=0), op.Constant(value_ints=[1]))
        return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)

    def product(inp: Any, dims: Any = None, output_dtype: int | None = None) -> Any:
        axes = None if dims is None else op.Constant(value_ints=list(dims))
        return op.ReduceProd(inp, axes, keepdims=0)

    return {torch.ops.aten.sort.stable: sort, torch.ops.prims.prod.default: product}


def _parts(space: spaces.Space) -> list[spaces.Space]:
    return list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]


def _example(space: Any) -> Tensor:
    """Two observations that the policy can read."""
    first = getattr(space, "start", 0)
    return torch.as_tensor(np.broadcast_to(first, (2, *space.shape)).astype(space.dtype))


def _metadata(agent: Any) -> dict[str, str]:
    values = {
        "version": library_version(),
        "algorithm": str(agent.algorithm),
        "core": agent.policy.core_name,
        "observation_space": json.dumps(space_to_plain(agent.observation_space)),
        "action_space": json.dumps(space_to_plain(agent.action_space)),
    }
    return {FORMAT_KEY: str(FORMAT), **{PREFIX + name: value for name, value in values.items()}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on libraries that are not needed here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
