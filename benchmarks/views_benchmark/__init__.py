"""The parts of the views benchmark, `benchmarks/views.py`."""
