"""Where images come from beside NumPy files: folders of pictures, Zarr stores, scenes that are read in strips."""
