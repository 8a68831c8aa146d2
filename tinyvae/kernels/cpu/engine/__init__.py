"""The micro-kernels behind the ops of this column, and how they are compiled.
It knows blocks, panels and vectors, and no op."""
