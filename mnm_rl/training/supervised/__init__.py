"""Training a core on a supervised task: the twin of :mod:`mnm_rl.training.rl`."""
