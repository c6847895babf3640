"""A parameter update that a non-finite loss or gradient cannot get through."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer


class NonFiniteError(RuntimeError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class UpdateInfo(NamedTuple):
    """What came of one update: whether it was applied, and the gradient norm before clipping."""

    applied: bool
    grad_norm: float


class GuardedOptimizer:
    """An optimizer step with gradient clipping that leaves the parameters alone where numbers are not finite.

    Args:
        optimizer: any torch optimizer.
        parameters: the parameters that it updates.
        max_norm: gradients are scaled down to this Euclidean norm; ``None`` for no limit.
        patience: so many skipped updates in a row end the run.
        average_gradients: with several processes, update with the mean of their gradients; for a model that
            does not take it by itself, as ``DistributedDataParallel`` does.

    Raises:
        ValueError: the limit is not positive, or the optimizer updates none of the parameters.

    Attributes:
        skipped: number of updates that were skipped so far.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Iterable[nn.Parameter],
        max_norm: float | None,
        patience: int = 20,
        average_gradients: bool = False,
    ):
        self.use(optimizer, parameters, max_norm)
        self.patience = patience
        self.average_gradients = average_gradients
        self.skipped = 0
        self._skipped_in_a_row = 0

    def use(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], max_norm: float | None) -> None:
        """Go on with another optimizer, other parameters or another limit; the counts stay.

        Raises:
            ValueError: the limit is not positive, or the optimizer updates none of the parameters.
        """
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"The gradient norm limit must be positive, got {max_norm}.")
        self.optimizer = optimizer
        self.parameters = list(parameters)
        self.max_norm = max_norm
        updated = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in updated for parameter in self.parameters):
            raise ValueError("The optimizer updates none of the parameters; it was made for others.")
        fuse(optimizer)

    def step(self, loss: Tensor, where: str) -> UpdateInfo:
        """Back-propagate ``loss`` and update the parameters.

        Args:
            loss: a scalar.
            where: the step of the run, in words, for the error message: ``"update 12"``.

        Raises:
            NonFiniteError: after ``patience`` skipped updates in a row.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.average_gradients:
            _average_gradients(self.parameters)
        norm = clip_gradients(self.parameters, math.inf if self.max_norm is None else self.max_norm)
        grad_norm = float(norm)
        if not _all_processes_agree(norm.isfinite() & loss.detach().isfinite().to(norm.device)):
            self._skip(where)
            return UpdateInfo(False, grad_norm)
        self.optimizer.step()
        self._skipped_in_a_row = 0
        return UpdateInfo(True, grad_norm)

    def _skip(self, where: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.patience:
            raise NonFiniteError(
                f"The loss or its gradient was not finite {self._skipped_in_a_row} times in a row, the last "
                f"time at {where}; the parameters are those from before."
            )

    def state_dict(self) -> dict[str, Any]:
        """The counts; the optimizer's own state is not included."""
        return {"skipped": self.skipped, "skipped_in_a_row": self._skipped_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the counts from :meth:`state_dict`."""
        self.skipped = state["skipped"]
        self._skipped_in_a_row = state["skipped_in_a_row"]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a Euclidean norm, and return the one they had, a scalar.

    As ``torch.nn.utils.clip_grad_norm_``, but a gradient that is finite has a finite norm: the squares of
    numbers above 1e19, which long sequences can have, are too large for single precision.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if not gradients or norm.isfinite():
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        return norm
    norm = torch.stack([gradient.double().norm().to(norm.device) for gradient in gradients]).norm()
    # In two steps, since the factor may be too small for their type, too.
    root = (max_norm / norm).clamp(max=1).sqrt()
    for gradient in gradients:
        gradient.mul_(root.to(gradient.device)).mul_(root.to(gradient.device))
    return norm


def fuse(optimizer: Optimizer) -> None:
    """Let Adam make each step in one pass over its numbers, where it can and nobody has said otherwise.

    torch does so only if it is told; its other form on the processor takes four times as long. Adam of a
    device keeps that device's default.
    """
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return
    for group in optimizer.param_groups:
        others = ("foreach", "capturable", "differentiable")
        is_free = group.get("fused", False) is None and not any(group.get(name) for name in others)
        if is_free and all(_is_on_processor(parameter) for parameter in group["params"]):
            group["fused"] = True


def _is_on_processor(parameter: Tensor) -> bool:
    return (
        type(parameter) is nn.Parameter and parameter.device.type == "cpu" and parameter.is_floating_point()
    )


def process_share() -> tuple[int, int]:
    """This process's number, and how many share the work: (0, 1) without a group of ``torch.distributed``."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@torch.no_grad()
def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes, which have them for the same parameters."""
    processes = process_share()[1]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if processes == 1 or not gradients:
        return
    # One message for all of them.
    joined = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= processes
    for gradient, mean in zip(
        gradients, joined.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def _all_processes_agree(finite: Tensor) -> bool:
    """With several processes a gradient is shared but a loss is not: they skip together or not at all.

    Args:
        finite: a boolean where the parameters are, because processes on GPUs can share nothing else.
    """
    if distributed.is_available() and distributed.is_initialized():
        finite = finite.float()
        distributed.all_reduce(finite, distributed.ReduceOp.MIN)
    return bool(finite)
