"""The same run on Ray: an actor pool predicts blocks of images, their labels come back in order.

Blocks are keyed by the index of their first image. An actor opens the nets and the images once, by names that every
node must be able to read; what travels is a block's index one way and its labels (uint8) the other, never images or
logits. Ray does a block again whose worker or node was lost; that every image comes once and in order is checked where
the labels arrive, and the masks go through the same shards and writers as those of a local run.

Ray is imported in :mod:`engine.runs.on_ray.cluster` alone, and only when a run asks for it.
"""
