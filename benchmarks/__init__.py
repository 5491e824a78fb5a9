"""Measurements and the scripts behind the project's tables; nothing here is installed."""
