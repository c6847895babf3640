"""Train a memory core on a supervised task; the same as `mnm-rl train-supervised`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("train-supervised")
