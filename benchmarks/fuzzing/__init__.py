"""What `benchmarks/fuzz.py` tries: one module a kind of input, `mutations` for all of them, `running` for the limits."""
