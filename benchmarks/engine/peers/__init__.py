"""One script a peer, run by the Python of that peer's own environment; `wire` is all that they share."""
