"""Runs that survive a kill: finished masks in shards, a journal of them, a lock, and how a later run continues."""
