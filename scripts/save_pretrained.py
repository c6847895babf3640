"""Make a model for others of a run; the same as `mnm-rl save-pretrained`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("save-pretrained")
