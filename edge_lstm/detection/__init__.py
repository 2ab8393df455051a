"""Residual, score, threshold, events: causal, with a fixed-point twin that the C runs."""
