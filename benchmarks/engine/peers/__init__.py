"""One script a peer, run by the Python of that peer's own environment; they share what stands in `benchmarks/peers`."""
