"""Comparison of all members and strategies on the same logits: scores with intervals, speed, agreement."""
