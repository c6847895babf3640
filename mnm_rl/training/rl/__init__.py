"""Training an agent: the twin of `mnm_rl.training.supervised`."""
