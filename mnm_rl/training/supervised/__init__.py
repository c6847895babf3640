"""Training a core on a supervised task: the twin of `mnm_rl.training.rl`."""
