"""Decoders: how a next-token distribution becomes text, and what two texts and two shaped distributions differ by."""
