"""The same run on Ray: an actor pool predicts blocks of images, their labels come back in order.

Blocks are keyed by the index of their first image. An actor opens the nets and the images once, by names that every
node must be able to read; only a block's index is sent one way and its labels (uint8) the other, never images or
logits. Ray repeats a block whose worker or node was lost; the receiver checks that every image arrives once and in
order, and the masks go through the same shards and writers as those of a local run.

Ray is imported only in :mod:`engine.runs.on_ray.cluster`, and only if a run uses it.
"""
