"""Figures of a trained model: likelihood, latent space, samples, anomalies, and what a loss means.
It reads models and trains none but its own classifier."""
