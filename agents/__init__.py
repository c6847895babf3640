"""Recurrent agents for Stable-Baselines3."""
