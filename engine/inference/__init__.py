"""An ensemble and how it runs: single batches, streams, tiles of a scene, on a GPU, tuned to the machine."""
