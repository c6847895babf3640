"""Recurrent memories behind one interface; a new one is a file beside ``mnm.py`` and a line below.

Cores of other packages need no file here: :func:`register_core` gives them a name, and wherever a name is
taken, so is a class or a reference ``package.module:ClassName``.
"""

from __future__ import annotations

from mnm_rl.cores.base import CoreOutput, MemoryCore, detach_state, reset_state
from mnm_rl.cores.composed import EncodedCore, PairedCore, StackedCore, innermost, make_layers
from mnm_rl.cores.delta_net import DeltaNetCore
from mnm_rl.cores.dnc import DNCCore
from mnm_rl.cores.entnet import EntNetCore
from mnm_rl.cores.fast_weights import FastWeightsCore
from mnm_rl.cores.fwm import FWMCore
from mnm_rl.cores.lookup import LookupCore
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.cores.ntm import NTMCore
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
from mnm_rl.cores.sentences import SentenceCore, reads_sentences, sentence_core_names
from mnm_rl.cores.sparse import SparseCore
from mnm_rl.cores.tpr import TPRCore

register_core("mnm-p", MNMCore, write_rule="local")
register_core("mnm-g", MNMCore, write_rule="gradient")
register_core("mnm-p-gated", MNMCore, write_rule="gated-local")
register_core("lstm", LSTMCore)
register_core("lstm-salu", LookupCore)
register_core("gru", GRUCore)
register_core("plastic", PlasticCore, plasticity="full")
register_core("plastic-homogenous", PlasticCore, plasticity="homogenous")
register_core("fwm", FWMCore)
register_core("delta-net", DeltaNetCore)
register_core("fast-weights", FastWeightsCore)
register_core("ntm", NTMCore)
register_core("tpr-rnn", TPRCore)
register_core("entnet", EntNetCore)
register_core("dnc", DNCCore)
register_core("sdnc", SparseCore, links=True)
register_core("sam", SparseCore, links=False)

__all__ = [
    "CORES",
    "CoreChoice",
    "CoreOutput",
    "EncodedCore",
    "MemoryCore",
    "PairedCore",
    "SentenceCore",
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
    "make_layers",
    "reads_sentences",
    "register_core",
    "reset_state",
    "sentence_core_names",
]
