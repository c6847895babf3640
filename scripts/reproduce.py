"""Reproduce a figure or table of the paper; the same as `mnm-rl reproduce`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("reproduce")
