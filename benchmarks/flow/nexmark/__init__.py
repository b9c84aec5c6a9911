"""Nexmark on the DataStream API: queries 0–5, 7–9, 11–14, 16–20 and 22, checked against SQL over the same events."""
