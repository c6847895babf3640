"""Evaluate a run; the same as `mnm-rl evaluate`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("evaluate")
