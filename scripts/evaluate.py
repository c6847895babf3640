"""Evaluate a run; the same as `mnm-rl evaluate`."""

from mnm_rl.commands.evaluate import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
