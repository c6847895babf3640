"""``python -m mnm_rl NAME`` is ``mnm-rl NAME``."""

from mnm_rl.commands.main import main

if __name__ == "__main__":
    main()
