"""Every strategy and every member against each other on the same logits: scores with intervals, speed, agreement."""
