"""The neural memory: a network that is read by running it and written by changing its weights."""

from mnm_rl.memory.function import (
    OutputActivation,
    activations,
    join_weights,
    layer_sizes,
    random_weights,
    recall,
    split_weights,
)
from mnm_rl.memory.loss import memory_objective, meta_objective
from mnm_rl.memory.writes import (
    STANDARD_RULES,
    WRITE_RULES,
    Normalization,
    WriteInputs,
    WriteRule,
    constant_scale,
    forget,
    gradient_write,
    local_write,
    write_scale,
)

__all__ = [
    "STANDARD_RULES",
    "WRITE_RULES",
    "Normalization",
    "OutputActivation",
    "WriteInputs",
    "WriteRule",
    "activations",
    "constant_scale",
    "forget",
    "gradient_write",
    "join_weights",
    "layer_sizes",
    "local_write",
    "memory_objective",
    "meta_objective",
    "random_weights",
    "recall",
    "split_weights",
    "write_scale",
]
