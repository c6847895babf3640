"""Train a recurrent A2C agent; the same as `mnm-rl train-a2c`."""

from mnm_rl.commands.train_a2c import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
