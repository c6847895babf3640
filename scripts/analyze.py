"""Look into the memory of a trained run; the same as `mnm-rl analyze`."""

from mnm_rl.commands.analyze import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
