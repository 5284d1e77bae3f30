"""The parts of the benchmarks of training; `benchmarks/training_step.py` and `benchmarks/peers_kd.py` use them."""
