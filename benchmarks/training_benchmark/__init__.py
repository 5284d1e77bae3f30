"""The parts of the training benchmarks, `benchmarks/training_step.py`, `peers_kd.py` and `labels.py`."""
