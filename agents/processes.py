"""Several processes train one agent: each plays in environments of its own, and all make the same updates.

The processes are those of the default group of ``torch.distributed``; without one, and with a group of one,
everything here is what it is for a single process, and nothing is sent.

Dimensions: ``P`` processes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import explained_variance, set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize
from torch import Tensor, distributed

from mnm_rl.updates import process_share


def seed_envs(env: VecEnv, seed: int) -> None:
    """Seed this process's environments as what they are of all: number i of all processes gets seed + i."""
    env.seed(seed + process_share()[0] * env.num_envs)


def seed_own_draws(seed: int | None, device: torch.device) -> None:
    """Have this process draw other actions than the first one, which goes on as a single process would.

    Args:
        seed: of the run; without one the generators stay as they are.
        device: where actions are drawn.
    """
    rank = process_share()[0]
    if rank > 0 and seed is not None:
        own = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
        set_random_seed(own, using_cuda=device.type == "cuda")


def gathered(own: Any) -> list[Any]:
    """What each process has, in their order; any object that can be pickled."""
    processes = process_share()[1]
    if processes == 1:
        return [own]
    found: list[Any] = [None] * processes
    distributed.all_gather_object(found, own)
    return found


def gathered_by_first(own: Any) -> list[Any]:
    """The same for the first process alone; the others get nothing."""
    rank, processes = process_share()
    if processes == 1:
        return [own]
    found: list[Any] = [None] * processes if rank == 0 else []
    distributed.gather_object(own, found or None)
    return found


def wait_for_all() -> None:
    """Go on when all processes are here."""
    if process_share()[1] > 1:
        distributed.barrier()


def mean_over_processes(numbers: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each number; all processes must give the same names."""
    if process_share()[1] == 1:
        return dict(numbers)
    rows = _gathered_rows(torch.tensor(list(numbers.values()), dtype=torch.float64, device=device))
    return dict(zip(numbers, rows.mean(0).tolist(), strict=True))


def least_of_processes(numbers: Sequence[float], device: torch.device) -> list[float]:
    """The smallest that any process gives of each number."""
    if process_share()[1] == 1:
        return list(numbers)
    rows = _gathered_rows(torch.tensor(numbers, dtype=torch.float64, device=device))
    return rows.amin(0).tolist()


def standardized(numbers: Tensor) -> Tensor:
    """Brought to mean 0 and standard deviation 1 over all processes, each with as many numbers."""
    mean, std = (numbers.mean(), numbers.std()) if process_share()[1] == 1 else _moments(numbers)
    return (numbers - mean) / (std + 1e-8)


def explained_by(values: NDArray[Any], returns: NDArray[Any], device: torch.device) -> float:
    """Which part of the variance of the returns the values explain, over all processes; NaN if there is none.

    Args:
        values: any shape.
        returns: the same.
        device: where processes exchange tensors.
    """
    if process_share()[1] == 1:
        return float(explained_variance(values.ravel(), returns.ravel()))
    rest = _moments(torch.as_tensor(returns - values, device=device))[1]
    spread = _moments(torch.as_tensor(returns, device=device))[1]
    return float("nan") if spread == 0 else float(1 - (rest / spread) ** 2)


def _moments(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all processes, from the mean and the variance in each."""
    rows = _gathered_rows(torch.stack([numbers.mean(), numbers.var(correction=0)]))
    mean = rows[:, 0].mean()
    variance = (rows[:, 1] + (rows[:, 0] - mean) ** 2).mean()
    count = len(rows) * numbers.numel()
    return mean, (variance * count / (count - 1)).sqrt()


def _gathered_rows(own: Tensor) -> Tensor:
    """Of all processes, ``[P, ...]``, where they lie."""
    rows = [torch.empty_like(own) for _ in range(process_share()[1])]
    distributed.all_gather(rows, own)
    return torch.stack(rows)


@torch.no_grad()
def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if process_share()[1] > 1:
        for tensor in tensors:
            whole = tensor.contiguous()
            distributed.broadcast(whole, 0)
            tensor.copy_(whole)


def check_alike(own: Mapping[str, Any]) -> None:
    """Make sure that all processes have the same settings; each of them learns of a difference.

    Raises:
        ValueError: they differ; the message says in what.
    """
    everybody = gathered(dict(own))
    for name in own:
        values = [each.get(name) for each in everybody]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"The processes that train together must have the same {name}, but have "
                f"{', '.join(map(str, values))}."
            )


class SharedStatistics:
    """The statistics of VecNormalize as those of all processes' observations and rewards.

    Each process's change at every step, as ever; :meth:`share` brings them together after a rollout.

    Args:
        env: this process's; without a VecNormalize around it that learns, nothing is done.
    """

    def __init__(self, env: VecEnv):
        wrapper = unwrap_vec_normalize(env) if process_share()[1] > 1 else None
        self._wrapper = wrapper if wrapper is not None and wrapper.training else None
        if self._wrapper is not None:
            # From here on each process learns for itself; what they know together must be the same.
            _replace(self._wrapper, gathered(_learned(self._wrapper))[0])
            self._common = _learned(self._wrapper)

    def share(self) -> None:
        """Give all processes what each of them has seen since the last time."""
        if self._wrapper is None:
            return
        parts = gathered(_learned(self._wrapper))
        merged = {
            name: merged_statistics(before, [part[name] for part in parts])
            for name, before in self._common.items()
        }
        _replace(self._wrapper, merged)
        self._common = _learned(self._wrapper)


def merged_statistics(before: RunningMeanStd, parts: Sequence[RunningMeanStd]) -> RunningMeanStd:
    """Statistics of everything that was seen.

    Args:
        before: what all parts began with.
        parts: what each became.
    """
    again = len(parts) - 1  # so often is what was there before counted too often
    merged = copy.deepcopy(before)
    merged.count = sum(part.count for part in parts) - again * before.count
    shift = sum(part.count * (part.mean - before.mean) for part in parts) / merged.count
    squares = sum(part.count * (part.var + (part.mean - before.mean) ** 2) for part in parts)
    merged.mean = before.mean + shift
    merged.var = np.maximum((squares - again * before.count * before.var) / merged.count - shift**2, 0.0)
    return merged


def _learned(wrapper: VecNormalize) -> dict[str, RunningMeanStd]:
    """Its statistics by name, safe from later changes: of the returns, and of each kind of observation."""
    found: dict[str, RunningMeanStd] = {"": wrapper.ret_rms}
    if wrapper.norm_obs:
        observed: Any = wrapper.obs_rms
        parts = observed if isinstance(observed, dict) else {"": observed}
        found |= {f"obs {key}": part for key, part in parts.items()}
    return copy.deepcopy(found)


def _replace(wrapper: VecNormalize, statistics: dict[str, RunningMeanStd]) -> None:
    """Put back what :func:`_learned` returned."""
    new = copy.deepcopy(statistics)
    wrapper.ret_rms = new.pop("")
    if wrapper.norm_obs:
        parts = {key.removeprefix("obs "): part for key, part in new.items()}
        wrapper.obs_rms = parts if isinstance(wrapper.obs_rms, dict) else parts[""]  # pyright: ignore
