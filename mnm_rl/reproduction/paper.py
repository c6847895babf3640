"""Numbers that the paper's text and tables give (Munkhdalai et al. 2019); its curves are not read off.

The errors of the models on each bAbI task (Table 3) are in :mod:`mnm_rl.tasks.babi.table`.
"""

from __future__ import annotations

LABELS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "lstm-salu": "LSTM+SALU",
    "mnm-g": "MNM-g",
    "mnm-p": "MNM-p",
    "plastic": "Plastic",
    "plastic-homogenous": "Homogenous Plastic",
    "tpr-rnn": "TPR-RNN",
    "entnet": "EntNet",
    "dnc": "DNC",
    "sdnc": "SDNC",
    "sam": "SAM",
    "ntm": "NTM",
    "fwm": "FWM",
    "delta-net": "DeltaNet",
    "fast-weights": "fast weights",
}
"""The cores under the paper's names, and under those of other papers where it has none."""


def core_label(core: str) -> str:
    """How a core is called in tables and figures: by the paper's name, or, where it has none, by its own.

    Args:
        core: a name, or a reference ``package.module:ClassName``, of which the class's name stays.
    """
    return LABELS.get(core, core.rpartition(":")[2])


ALGORITHMIC: dict[tuple[str, str], str] = {
    **{("instance-1", core): "solved" for core in ("lstm", "lstm-salu", "mnm-g", "mnm-p")},
    **{("instance-2", core): "converged" for core in ("lstm-salu", "mnm-g", "mnm-p")},
    **{
        (instance, core): text
        for instance in ("instance-3", "instance-4")
        for core, text in {
            "lstm": "not converged",
            "lstm-salu": "not converged",
            "mnm-g": "zero error",
            "mnm-p": "zero error",
        }.items()
    },
    ("double-copy", "mnm-g"): "solved quickly",
    ("double-copy", "mnm-p"): "solved quickly",
    ("priority-sort", "lstm-salu"): "the strongest result",
}
"""Section 4.1 in words: (panel, core) -> result."""

MEMORY_WIDTH = 100
"""Figure 3: beyond this input length LSTM+SALU becomes less efficient than MNM."""

TABLE_1: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "EntNet": ((9.7, 2.6), (5, 1.2)),
    "TPR-RNN": ((1.34, 0.52), (0.86, 1.11)),
    "DNC": ((12.8, 4.7), (8.2, 2.5)),
    "SDNC": ((6.4, 2.5), (4.1, 1.6)),
    "MNM-g": ((3.2, 0.5), (1.3, 0.8)),
    "MNM-p": ((0.55, 0.74), (0.08, 0.28)),
}
"""Model -> mean error in % and failed tasks, with standard deviations; the first two read sentences."""

AFTER_62K = {"lstm-salu": 77.5, "mnm-p": 9.5}
"""Section 4.2: mean error in % after :data:`COMPARED_AT` iterations; the text says 'the MNM runs'."""
COMPARED_AT = 62_000

TABLE_4: dict[int, tuple[float, float, float]] = {
    1: (0, 0, 0),
    2: (0.2, 0.2, 0),
    3: (1.8, 0.43, 0.9),
    4: (0, 0, 0),
    5: (0.59, 0.25, 0.2),
    6: (0.03, 0.06, 0),
    7: (0.13, 0.15, 0),
    8: (0.03, 0.05, 0),
    9: (0.01, 0.03, 0),
    10: (0.04, 0.05, 0),
    11: (0, 0, 0),
    12: (0.01, 0.03, 0),
    13: (0, 0, 0),
    14: (1.49, 1.25, 0.1),
    15: (0, 0, 0),
    16: (4.63, 13.44, 0.3),
    17: (0.46, 0.67, 0),
    18: (0.25, 0.2, 0),
    19: (1.23, 1.26, 0),
    20: (0, 0, 0),
}
"""Task -> mean, standard deviation and best error in % of 12 runs of MNM-p."""

MAZE_REWARD = 175
"""Figure 6: where the plastic agents converge, after nearly 1,000,000 episodes ..."""
MAZE_EPISODES = 250_000
"""... and MNM is after so many."""
MAZE: dict[str, str] = {
    "mnm-p": "175 at 250,000 episodes, significantly higher after 1,000,000",
    "plastic": "converges to 175 after nearly 1,000,000 episodes",
    "plastic-homogenous": "converges to 175 after nearly 1,000,000 episodes",
}
"""Section 4.3 in words."""
