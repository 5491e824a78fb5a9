"""A run of `engine ensemble`: options checked, images or scenes predicted, stored for resuming, written, recorded."""
