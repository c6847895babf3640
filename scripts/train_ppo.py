"""Train a recurrent PPO agent; the same as `mnm-rl train-ppo`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("train-ppo")
