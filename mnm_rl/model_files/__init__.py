"""The folder of a trained model, without any pickle: its parameters, what it is, and a card for readers."""
