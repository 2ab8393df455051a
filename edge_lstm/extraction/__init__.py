"""Features of raw samples in integers: what a device computes between two rows of its network."""
