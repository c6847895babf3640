"""The one interface that every recurrent memory offers to tasks and to agents.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``O`` output size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

StateT = TypeVar("StateT", bound=tuple)
"""A ``NamedTuple`` of tensors, each ``[B, ...]``."""


class CoreOutput(NamedTuple, Generic[StateT]):
    """What a core returns for a sequence.

    Attributes:
        outputs: ``[T, B, O]``.
        state: the state after the last step, to be passed to the next call.
        meta_loss: ``[T, B]``, the core's own loss at every step (Munkhdalai et al. 2019, Eq. 5 before the
            mean over time). Zero for cores that have none. Whoever trains takes the mean over the steps
            that count, so that padding is left out without the core knowing about it.
        trace: named tensors ``[T, B, ...]`` of what the memory did, if asked for by ``record=True``.
    """

    outputs: Tensor
    state: StateT
    meta_loss: Tensor
    trace: dict[str, Tensor] | None = None


class MemoryCore(nn.Module, ABC, Generic[StateT]):
    """A recurrent memory: a sequence in, a sequence out, and a state in between.

    A core knows nothing of tasks, of reinforcement learning, or of losses other than its own meta loss.

    Attributes:
        input_size: ``I``.
        output_size: ``O``.
    """

    input_size: int
    output_size: int
    quick_resets: ClassVar[bool] = False
    """Whether an episode may start at any step of any sequence at no great cost."""
    trace_names: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors in a trace; none for a core without a memory to look into."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> StateT:
        """State at the start of an episode, ``batch_size`` times, on the device of the parameters."""

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        state: StateT | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[StateT]:
        """Run a whole sequence.

        Args:
            inputs: ``[T, B, I]``.
            state: the state before the first step; the initial state if not given.
            resets: boolean ``[T, B]``. Where true, an episode starts at that step: the example's state is
                replaced by the initial state *before* the step, and no gradient flows across.
            record: also return a trace.

        Raises:
            ValueError: if the shapes do not fit.
        """

    def step(
        self, inputs: Tensor, state: StateT | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """Run one step, for acting.

        Args:
            inputs: ``[B, I]``.
            state: the state before the step; the initial state if not given.
            resets: boolean ``[B]``, as in :meth:`forward`.

        Returns:
            outputs ``[B, O]`` and the state after the step.
        """
        output = self(inputs.unsqueeze(0), state, None if resets is None else resets.unsqueeze(0))
        return output.outputs[0], output.state

    def acting(self) -> AbstractContextManager[None]:
        """Two promises with which a core may act faster, for as long as the context lasts.

        The parameters stay as they are, and a state that a step has returned is given to one further step
        at most: that step may overwrite it.
        """
        return nullcontext()

    def _check_inputs(self, inputs: Tensor, resets: Tensor | None) -> None:
        if inputs.dim() != 3 or inputs.shape[2] != self.input_size or inputs.shape[0] == 0:
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape [T, B, {self.input_size}] with T >= 1, "
                f"got {list(inputs.shape)}."
            )
        if resets is not None and (resets.dtype != torch.bool or resets.shape != inputs.shape[:2]):
            raise ValueError(
                f"resets must be boolean of shape {list(inputs.shape[:2])}, "
                f"got {resets.dtype} of shape {list(resets.shape)}."
            )


def reset_state(state: StateT, initial: StateT, mask: Tensor) -> StateT:
    """Replace the examples of ``state`` where ``mask`` ``[B]`` is true by those of ``initial``."""
    fields: list[Any] = [
        torch.where(mask.view(-1, *[1] * (old.dim() - 1)), new, old)
        for old, new in zip(state, initial, strict=True)
    ]
    return type(state)(*fields)


def detach_state(state: StateT) -> StateT:
    """The same state, cut off from the graph that computed it."""
    return type(state)(*[field.detach() for field in state])


def steps_with_resets(resets: Tensor | None, length: int) -> list[bool]:
    """For each of ``length`` steps, whether any example of the batch is reset there."""
    return [False] * length if resets is None else resets.any(dim=1).tolist()
