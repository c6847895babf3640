"""Recurrent memories behind one interface; a new one is a file beside ``mnm.py`` and a line below.

Cores of other packages need no file here: :func:`register_core` gives them a name, and wherever a name is
taken, so is a class or a reference ``package.module:ClassName``.
"""

from __future__ import annotations

from mnm_rl.cores.base import CoreOutput, MemoryCore, detach_state, reset_state
from mnm_rl.cores.composed import EncodedCore, PairedCore, StackedCore, innermost
from mnm_rl.cores.lookup import LookupCore
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.cores.plastic import PlasticCore
from mnm_rl.cores.recurrent import GRUCore, LSTMCore
from mnm_rl.cores.registry import (
    CORES,
    CoreChoice,
    core_config,
    core_name,
    core_names,
    core_reference,
    core_settings,
    default_config,
    find_core,
    has_setting,
    make_core,
    register_core,
)

register_core("mnm-p", MNMCore, write_rule="local")
register_core("mnm-g", MNMCore, write_rule="gradient")
register_core("mnm-p-gated", MNMCore, write_rule="gated-local")
register_core("lstm", LSTMCore)
register_core("lstm-salu", LookupCore)
register_core("gru", GRUCore)
register_core("plastic", PlasticCore, plasticity="full")
register_core("plastic-homogenous", PlasticCore, plasticity="homogenous")

__all__ = [
    "CORES",
    "CoreChoice",
    "CoreOutput",
    "EncodedCore",
    "MemoryCore",
    "PairedCore",
    "StackedCore",
    "core_config",
    "core_name",
    "core_names",
    "core_reference",
    "core_settings",
    "default_config",
    "detach_state",
    "find_core",
    "has_setting",
    "innermost",
    "make_core",
    "register_core",
    "reset_state",
]
