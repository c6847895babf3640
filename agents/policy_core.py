"""The recurrent part of a policy: an encoder, layers of a core, and the same once more for the values.

    features -> encoder -> layers of the core -> outputs

Dimensions: ``B`` environments, ``I`` features, ``O`` output size of a core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from mnm_rl.agents.arguments import check_dictionary, one_line
from mnm_rl.agents.policy_settings import BYTES_PER_WEIGHT, are_sizes
from mnm_rl.agents.settings import COUNT, check_flag, check_number
from mnm_rl.cores import (
    CoreChoice,
    EncodedCore,
    MemoryCore,
    PairedCore,
    core_config,
    make_layers,
)
from mnm_rl.sizes import check_fits


@dataclass(frozen=True)
class CoreSettings:
    """What is between the features of an observation and the heads of a policy.

    Raises:
        ValueError: unknown core, or a setting that is not allowed.
        TypeError: unknown setting of the core, or one of another type.
    """

    core: CoreChoice = "lstm"
    core_kwargs: Mapping[str, Any] = field(default_factory=dict)
    core_layers: int = 1
    encoder_arch: Sequence[int] = ()
    separate_critic: bool = False

    def __post_init__(self) -> None:
        check_dictionary("core_kwargs", self.core_kwargs)
        core_config(self.core, **self.core_kwargs)
        check_number("core_layers", self.core_layers, COUNT)
        check_flag("separate_critic", self.separate_critic)
        if not are_sizes(self.encoder_arch):
            raise ValueError(
                "The encoder (encoder_arch) must be a list of sizes of at least 1, such as [64], "
                f"got {one_line(repr(self.encoder_arch))}."
            )
        weights = sum(one * other for one, other in pairwise((1, *map(int, self.encoder_arch))))
        check_fits(weights * BYTES_PER_WEIGHT, f"an encoder of sizes {one_line(list(self.encoder_arch))}")

    def build(self, features: int, activation_fn: Callable[[], nn.Module], ortho_init: bool) -> MemoryCore:
        """The core, or what is made of several.

        Args:
            features: I.
            activation_fn: nonlinearity after each layer of the encoder.
            ortho_init: orthogonal initialisation of the encoder.
        """

        def column() -> MemoryCore:
            size = int(self.encoder_arch[-1]) if self.encoder_arch else features
            core = make_layers(self.core, size, int(self.core_layers), **self.core_kwargs)
            return self._encoded(core, features, activation_fn, ortho_init)

        return PairedCore(column(), column(), ("actor", "critic")) if self.separate_critic else column()

    def _encoded(
        self, core: MemoryCore, features: int, activation_fn: Callable[[], nn.Module], ortho_init: bool
    ) -> MemoryCore:
        if not self.encoder_arch:
            return core
        encoder = nn.Sequential()
        for inputs, outputs in pairwise((features, *map(int, self.encoder_arch))):
            encoder.append(nn.Linear(inputs, outputs))
            encoder.append(activation_fn())
        if ortho_init:
            encoder.apply(lambda module: BasePolicy.init_weights(module, gain=np.sqrt(2)))
        return EncodedCore(encoder, core, features)


def actor_and_critic(core: MemoryCore, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the two heads see of a core's outputs ``[..., O]``: all of it, or each its own core's."""
    if isinstance(core, PairedCore):
        return outputs.split(core.output_sizes, dim=-1)  # pyright: ignore[reportReturnType]
    return outputs, outputs


def head_inputs(core: MemoryCore) -> int:
    """O, of one of the two cores where there are two."""
    return core.output_sizes[0] if isinstance(core, PairedCore) else core.output_size
