"""A comparison as one self-contained page: no network, no fonts, nothing but the file."""
