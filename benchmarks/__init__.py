"""Measurements and the scripts that make what the project ships; nothing here is installed."""
