"""Metalearned neural memory (Munkhdalai et al. 2019): cores, tasks, environments and agents."""

from mnm_rl.cores import make_core, register_core
from mnm_rl.envs import register_envs

register_envs()

__version__ = "0.1.0"
__all__ = ["__version__", "make_core", "register_core"]
