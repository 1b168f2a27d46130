"""What `benchmarks/fuzz.py` tries: one module a kind, `mutations` for all, `running` for the limits."""
