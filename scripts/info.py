"""Say what the report of a fault needs; the same as `mnm-rl info`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("info")
