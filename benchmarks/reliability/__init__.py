"""Killed runs, failing disks and nodes, wrong inputs: the sources of docs/reliability.md."""
