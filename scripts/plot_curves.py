"""Draw training curves; the same as `mnm-rl plot-curves`."""

from mnm_rl.commands.plot_curves import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
