"""Draw training curves; the same as `mnm-rl plot-curves`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("plot-curves")
