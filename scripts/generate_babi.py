"""Write the bAbI tasks as files; the same as `mnm-rl generate-babi`."""

from mnm_rl.commands.main import run

if __name__ == "__main__":
    run("generate-babi")
