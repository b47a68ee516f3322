"""Benchmarks: ratios taken in one run, against the bare drivers. Never part of the test run, which only smoke-runs them."""
