"""Write the bAbI tasks as files; the same as `mnm-rl generate-babi`."""

from mnm_rl.commands.generate_babi import run_from_command_line

if __name__ == "__main__":
    run_from_command_line()
