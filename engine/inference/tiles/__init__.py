"""Scenes larger than a batch: the grid of tiles, their logits blended, the stride that members need."""
