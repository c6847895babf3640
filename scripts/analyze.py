"""Look into the memory of a trained run; the same as `mnm-rl analyze`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("analyze")
