"""Exact rules that answer every bAbI question from the text alone, with its supporting lines.

They share no code with the generator, and they answer the official files and the generated ones alike; see
``docs/babi.md``.
"""

from mnm_rl.tasks.babi.solver.solve import Check, Failure, check_stories, solve_story

__all__ = ["Check", "Failure", "check_stories", "solve_story"]
