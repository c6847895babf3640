"""Training runs: what their folders hold, and the two kinds of them, ``supervised`` and ``rl``."""
