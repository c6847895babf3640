"""Training an agent: the twin of :mod:`mnm_rl.training.supervised`."""
