"""The micro-kernels behind the ops of this column, and how they are compiled."""
