"""Train a recurrent A2C agent; the same as `mnm-rl train-a2c`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("train-a2c")
