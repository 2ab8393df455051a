"""Search of networks under a board's limits: what is tried, what it costs, and the study that remembers."""
