"""Train a memory core on a supervised task; the same as `mnm-rl train-supervised`."""

from mnm_rl.commands.train_supervised import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
