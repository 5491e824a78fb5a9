"""Segmentation nets of other projects, exported as people export them, and the commands that are run on each file."""
