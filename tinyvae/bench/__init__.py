"""The benchmarks: every op, product, convolution and training step, verified first, then timed beside its peers.
It knows the table of ops, the zoo and a step from outside; nothing in them knows of it."""
