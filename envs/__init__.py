"""The invisible-goal maze."""
