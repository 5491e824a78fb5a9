"""An ensemble and how it runs: one batch, a stream of batches, tiles of a scene, on a GPU, tuned to the machine."""
