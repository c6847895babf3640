"""Reproduce a figure or table of the paper; the same as `mnm-rl reproduce`."""

from mnm_rl.commands.reproduce import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
