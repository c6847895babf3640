"""The tasks: each a function from a stream of draws to one story."""
