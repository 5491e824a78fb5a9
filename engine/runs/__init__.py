"""A run of `engine ensemble`: options checked, images or scenes predicted, kept against a kill, written, recorded."""
