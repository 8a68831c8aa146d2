"""The benchmarks: ops, products, convolutions and training steps, verified first, then timed beside NumPy and peers."""
