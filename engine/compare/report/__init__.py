"""A comparison as one self-contained page: no network, no fonts, a single file."""
