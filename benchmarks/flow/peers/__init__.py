"""One script a peer, run by the Python of that peer's own environment; `workload` and `wire` are what they share."""
