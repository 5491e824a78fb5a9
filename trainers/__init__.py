"""Training: data, networks, losses and the loop that turns them into self-describing ``.keras`` files (Keras 3 alone)."""
