"""Runs that are killed, disks and nodes that fail, wrong inputs: what docs/reliability.md is made from."""
