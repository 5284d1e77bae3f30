"""The parts of the benchmark of views; `benchmarks/views.py` puts them together."""
