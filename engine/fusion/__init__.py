"""Logits of all members in, labels out: strategies, decoding, small regions."""
