"""The command lines, each a module with ``run_from_command_line``; ``mnm-rl NAME`` starts them."""
