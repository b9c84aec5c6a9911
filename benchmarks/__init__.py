"""Benchmarks: every claim is a ratio to a named peer, measured in the same run, interleaved (``make bench``)."""
