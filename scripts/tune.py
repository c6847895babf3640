"""Search settings for an environment and a core; the same as `mnm-rl tune`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("tune")
