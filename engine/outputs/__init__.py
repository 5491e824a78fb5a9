"""Masks to files of every form, each complete or absent."""
