"""The β-VAE: the VAE with a larger weight of the KL divergence."""

from __future__ import annotations

from .vae import VAE


class BetaVAE(VAE):
    """loss = −E_q(z|x)[log p(x|z)] + beta · KL(q(z|x) ‖ N(0, I)), beta = 4 unless a run says otherwise

    A beta above 1 gives latent dimensions that vary one by one, each a factor of the images, with blurred images: fewer
    nats of information pass through z. Higgins et al. 2017, equation 4. Under a sum over pixels, as here, beta is the
    paper's; what other conventions make of it, see the tutorial's chapter 5.
    """

    beta = 4.0
