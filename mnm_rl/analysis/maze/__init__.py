"""Agents in the maze, looked at from outside and inside: episodes, pictures, numbers."""
