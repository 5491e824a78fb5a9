"""Writers of masks, one form a file; :mod:`engine.masks` chooses among them."""
