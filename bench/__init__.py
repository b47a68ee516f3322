"""Benchmarks: ratios to the bare driver and a few peers, taken in one run. The test suite runs them on a few rows."""
