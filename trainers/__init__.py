"""Training with Keras 3 alone: data, networks, losses, and the loop that makes self-describing ``.keras`` files."""
