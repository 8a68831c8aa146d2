"""Pictures of what a model does, and the page to walk through its latent space.
Matplotlib is used here and nowhere else."""
