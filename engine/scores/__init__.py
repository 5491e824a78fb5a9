"""Scores beside the mean IoU: borders of classes, and the mean IoU as other libraries compute it."""
