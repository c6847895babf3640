"""RL Baselines3 Zoo with the recurrent agents; the same as `mnm-rl zoo`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("zoo")
