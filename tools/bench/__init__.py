"""Benchmarks: time, bytes and memory of a store, beside the goals. Run ``python -m tools.bench --help``."""
