"""What is wrong with a trained model, in words, and what to change.
It reads figures of measure and the log of a run."""
