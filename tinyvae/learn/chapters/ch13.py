"""Chapter 13, GANs: both players' gradients, a VAE-GAN's kept apart, the spectral norm by power iteration.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

COUNTS = ((3, 5), (6, 2), (4, 7))  # real images, drawn ones
DRAWN = ((5, 2, 3), (4, 3, 6), (7, 1, 4))  # B, latent, pixels
JOINED = ((4, 2, 5, 3), (5, 3, 4, 6), (7, 2, 6, 4))  # B, latent, pixels, features
MATRICES = ((4, 3, 1), (5, 7, 2), (3, 6, 4))  # n_in, n_out, rounds


def discriminator_grad(grad_y, real, drawn):
    """The gradient of loss_d = mean of −log D over real images + mean of −log(1 − D) over drawn ones.

    D = sigmoid(logit). real: (n,) and drawn: (m,), the logits of real and of drawn images. grad_y: the gradient of
    loss_d, a number.
    Returns (grad_real, grad_drawn), (n,) and (m,).
    """
    d_real, d_drawn = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-drawn))
    return grad_y * (d_real - 1) / len(real), grad_y * d_drawn / len(drawn)


def generator_grad(grad_y, z, weight, bias, u):
    """The gradient of loss_g = mean of −log D(G(z)), the non-saturating loss, for a generator of one layer.

    G(z) = z weight + bias, z: (B, latent), weight: (latent, N), bias: (N,). The logit of an image x is x · u, u: (N,),
    which stands still. D = sigmoid(logit). grad_y: the gradient of loss_g, a number. Returns (grad_weight, grad_bias).
    """
    d = 1 / (1 + np.exp(-(z @ weight + bias) @ u))  # (B,)
    grad_x = (grad_y * (d - 1) / len(z))[:, None] * u  # (B, N)
    return z.T @ grad_x, grad_x.sum(axis=0)


def vaegan_grad(z, x, decoder, features, head, gamma):
    """grad_z for the encoder and grad_decoder for the decoder of a VAE-GAN, each from a loss of its own:

    encoder: likeness (and its KL divergence, left out here). decoder: gamma · likeness + mean of −log D(recon).
    recon = z decoder, f = recon features, f_x = x features, D = sigmoid(f · head), each a product of matrices, and
    likeness = mean over the images of ½ Σ (f − f_x)². z: (B, latent). x: (B, N). decoder: (latent, N).
    features: (N, K). head: (K,). gamma: a number. Returns (grad_z, grad_decoder), shaped as z and as decoder.
    """
    f = z @ decoder @ features  # (B, K)
    likeness = (f - x @ features) / len(z) @ features.T  # (B, N)
    d = 1 / (1 + np.exp(-f @ head))
    fooling = ((d - 1) / len(z))[:, None] * head @ features.T  # (B, N)
    return likeness @ decoder.T, z.T @ (gamma * likeness + fooling)


def spectral_norm(weight, u, rounds):
    """The largest singular value of a matrix by power iteration, as far as `rounds` rounds get.

    weight: (n_in, n_out). u: (n_out,), any start. One round: v = weight u, made of length 1; then u = weightᵀ v, made
    of length 1. At the end sigma = v · weight u, with the last of both. Returns (sigma, u), a number and (n_out,).
    """
    for _ in range(rounds):
        v = weight @ u / np.linalg.norm(weight @ u)
        u = weight.T @ v / np.linalg.norm(weight.T @ v)
    return v @ weight @ u, u


def _loss_d(real, drawn):
    return np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(drawn)).mean()


def _loss_g(z, weight, bias, u):
    return np.log1p(np.exp(-(z @ weight + bias) @ u)).mean()


def _judged(rng: np.random.Generator, case: int) -> tuple:
    n, m = COUNTS[case]
    return rng.uniform(0.5, 2.0), rng.standard_normal(n) + 1, rng.standard_normal(m) - 1


def _generated(rng: np.random.Generator, case: int) -> tuple:
    B, L, N = DRAWN[case]
    weight, bias, u = rng.standard_normal((L, N)), rng.standard_normal(N), rng.standard_normal(N)
    return rng.uniform(0.5, 2.0), rng.standard_normal((B, L)), 0.5 * weight, 0.5 * bias, u


def _joined(rng: np.random.Generator, case: int) -> tuple:
    B, L, N, K = JOINED[case]
    z, x, decoder = rng.standard_normal((B, L)), rng.standard_normal((B, N)), rng.standard_normal((L, N))
    return z, x, decoder, 0.4 * rng.standard_normal((N, K)), rng.standard_normal(K), rng.uniform(0.1, 0.6)


def _matrix(rng: np.random.Generator, case: int) -> tuple:
    n, m, rounds = MATRICES[case]
    return rng.standard_normal((n, m)), rng.standard_normal(m), rounds


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _both(g, real, drawn, on_real, on_drawn):
    """discriminator_grad with other gradients at the logits."""
    return g * on_real(_sigmoid(real)) / len(real), g * on_drawn(_sigmoid(drawn)) / len(drawn)


def _generator(g, z, weight, bias, u, at_logit, B=None):
    """generator_grad with another gradient at the logit, a function of D."""
    grad_x = (g * at_logit(_sigmoid((z @ weight + bias) @ u)) / (B or len(z)))[:, None] * u
    return z.T @ grad_x, grad_x.sum(axis=0)


def _ways_back(z, x, decoder, features, head):
    """The gradients of likeness and of −log D(recon) with respect to the reconstruction, and D."""
    f = z @ decoder @ features
    d = _sigmoid(f @ head)
    return (f - x @ features) / len(z) @ features.T, ((d - 1) / len(z))[:, None] * head @ features.T, d


def _vaegan(of_z, of_decoder):
    """vaegan_grad with other sums at the reconstruction: each is called with (likeness, fooling, gamma)."""

    def wrong(z, x, decoder, features, head, gamma):
        likeness, fooling, _ = _ways_back(z, x, decoder, features, head)
        return of_z(likeness, fooling, gamma) @ decoder.T, z.T @ of_decoder(likeness, fooling, gamma)

    return wrong


def _saturating(z, x, decoder, features, head, gamma):
    likeness, _, d = _ways_back(z, x, decoder, features, head)
    fooling = (-d / len(z))[:, None] * head @ features.T
    return likeness @ decoder.T, z.T @ (gamma * likeness + fooling)


def _in_pixels(z, x, decoder, features, head, gamma):
    likeness = (z @ decoder - x) / len(z)
    return likeness @ decoder.T, z.T @ (gamma * likeness + _ways_back(z, x, decoder, features, head)[1])


def _row_sums(weight, u, rounds):
    """Power iteration that makes the vectors of sum 1, where length 1 is asked for."""
    for _ in range(rounds):
        v = weight @ u / np.abs(weight @ u).sum()
        u = weight.T @ v / np.abs(weight.T @ v).sum()
    return v @ weight @ u, u


def _before(weight, u, rounds):
    """σ with the u that stood before the last round."""
    old = spectral_norm(weight, u, rounds - 1)[1] if rounds > 1 else u
    v = weight @ old / np.linalg.norm(weight @ old)
    return v @ weight @ old, spectral_norm(weight, u, rounds)[1]


CHAPTER = Chapter(
    "13",
    "GANs, and VAEs joined with GANs",
    "13_gans_and_vaes_joined_with_gans.md",
    (
        Exercise(
            discriminator_grad,
            _judged,
            (
                Mistake("the gradient with the two targets exchanged: real images are to get 1, drawn ones 0",
                        lambda g, r, f: _both(g, r, f, lambda d: d, lambda d: d - 1)),
                Mistake("the gradient of −loss_d, which would make the discriminator worse",
                        lambda g, r, f: tuple(-a for a in discriminator_grad(g, r, f))),
                Mistake("on drawn images the generator's gradient, D − 1: there the discriminator's target is 0",
                        lambda g, r, f: _both(g, r, f, lambda d: d - 1, lambda d: d - 1)),
                Mistake("the gradient of ½ (D − target)², not of the logarithms: D (1 − D) cancels here",
                        lambda g, r, f: _both(g, r, f, lambda d: (d - 1) * d * (1 - d), lambda d: d * d * (1 - d))),
                Mistake("logit − target, where D − target belongs: the sigmoid is left out",
                        lambda g, r, f: (g * (r - 1) / len(r), g * f / len(f))),
                Mistake("the gradient of the two sums, where each is a mean over its own images",
                        lambda g, r, f: (g * (_sigmoid(r) - 1), g * _sigmoid(f))),
                Mistake("the gradient of one mean over all images, real and drawn together; there are two means",
                        lambda g, r, f: (g * (_sigmoid(r) - 1) / (len(r) + len(f)),
                                         g * _sigmoid(f) / (len(r) + len(f)))),
                Mistake("the gradient without grad_y, which multiplies all of it",
                        lambda g, r, f: discriminator_grad(1.0, r, f)),
            ),
            (
                "−log D = log(1 + exp(−logit)) and −log(1 − D) = log(1 + exp(logit)): differentiate these two.",
                "The derivatives are D − 1 and D: in both cases D minus what it should say.",
                "Each mean divides by the number of its own images, len(real) or len(drawn); grad_y multiplies both.",
            ),
            forward=_loss_d,
        ),
        Exercise(
            generator_grad,
            _generated,
            (
                Mistake("the gradient of log(1 − D(G(z))), the saturating loss: −D at the logit, where D − 1 belongs",
                        lambda g, *a: _generator(g, *a, lambda d: -d)),
                Mistake("the discriminator's gradient on drawn images, D at the logit: it would have the generator "
                        "found out",
                        lambda g, *a: _generator(g, *a, lambda d: d)),
                Mistake("the gradient of +log D(G(z)): the sign is turned round",
                        lambda g, *a: _generator(g, *a, lambda d: 1 - d)),
                Mistake("the gradient of −D(G(z)) itself, without the logarithm",
                        lambda g, *a: _generator(g, *a, lambda d: -d * (1 - d))),
                Mistake("the gradient of the sum over the batch, where the mean is asked for",
                        lambda g, *a: _generator(g, *a, lambda d: d - 1, 1)),
                Mistake("the gradient without grad_y, which multiplies all of it",
                        lambda g, *a: generator_grad(1.0, *a)),
                Mistake("the right gradient of weight, and of bias the mean over the images of what should be summed: "
                        "the 1/B is in already",
                        lambda g, z, *a: (generator_grad(g, z, *a)[0], generator_grad(g, z, *a)[1] / len(z))),
            ),
            (
                "Forward first: images x = z weight + bias, logits x · u, D. Then back the same way, through u first.",
                "At the logit the gradient is (D − 1) / B. Back through the discriminator it is that times u, for "
                "every image: shape (B, N).",
                "From there it is a dense layer: z.T @ grad_x, and the sum of grad_x over the images.",
            ),
            forward=_loss_g,
            wrt=("weight", "bias"),
        ),
        Exercise(
            vaegan_grad,
            _joined,
            (
                Mistake("one gradient for both: the encoder is told gamma · likeness and the adversarial loss, where "
                        "it should hear of likeness alone",
                        _vaegan(lambda a, b, c: c * a + b, lambda a, b, c: c * a + b)),
                Mistake("gamma in the encoder's gradient as well: it weighs the likeness for the decoder alone",
                        _vaegan(lambda a, b, c: c * a, lambda a, b, c: c * a + b)),
                Mistake("the adversarial loss in the encoder's gradient: it belongs to the decoder",
                        _vaegan(lambda a, b, c: a + b, lambda a, b, c: c * a + b)),
                Mistake("the decoder's gradient without gamma",
                        _vaegan(lambda a, b, c: a, lambda a, b, c: a + b)),
                Mistake("the decoder's gradient with gamma before the adversarial loss, not before the likeness",
                        _vaegan(lambda a, b, c: a, lambda a, b, c: a + c * b)),
                Mistake("the decoder's gradient of the likeness alone: nobody asks it to fool the discriminator",
                        _vaegan(lambda a, b, c: a, lambda a, b, c: c * a)),
                Mistake("the decoder's gradient of the saturating loss log(1 − D), where −log D is asked for",
                        _saturating),
                Mistake("likeness measured in pixels: recon and x are to be compared behind `features`", _in_pixels),
            ),
            (
                "First the gradients of the two terms with respect to recon, (B, N) each, and keep them apart.",
                "Likeness: (f − f_x) / B, back through features by its transpose. Fooling: (D − 1) / B for each image, "
                "back through head, then through features.",
                "The encoder gets the first @ decoder.T, the decoder z.T @ (gamma · the first + the second).",
            ),
        ),
        Exercise(
            spectral_norm,
            _matrix,
            (
                Mistake("the Frobenius norm, the root of all entries' squares: that is all singular values together",
                        lambda w, u, k: (np.linalg.norm(w), spectral_norm(w, u, k)[1])),
                Mistake("the square of sigma: the length of weightᵀ weight u, of which the root is missing",
                        lambda w, u, k: (spectral_norm(w, u, k)[0] ** 2, spectral_norm(w, u, k)[1])),
                Mistake("sigma as the length of weight u before the last u was made: half a round short", _before),
                Mistake("sigma as the length of weight u with the last u: half a round further than v · weight u",
                        lambda w, u, k: (np.linalg.norm(w @ spectral_norm(w, u, k)[1]), spectral_norm(w, u, k)[1])),
                Mistake("sigma and u after a single round, whatever `rounds` says",
                        lambda w, u, k: spectral_norm(w, u, 1)),
                Mistake("the right sigma, and the u that was given: the new one is what the next call goes on from",
                        lambda w, u, k: (spectral_norm(w, u, k)[0], u)),
                Mistake("v and u divided by the sum of their entries' sizes, where by their length is asked for",
                        _row_sums),
                Mistake("v where u belongs: what is kept has one number for each output", lambda w, u, k: (
                        spectral_norm(w, u, k)[0], w @ spectral_norm(w, u, k)[1] / spectral_norm(w, u, k)[0])),
            ),
            (
                "weight stretches u most along one direction; each round turns u towards it.",
                "np.linalg.norm gives a vector's length. Two lines in a loop: v from u, then u from v by weight.T.",
                "Behind the loop one product with both: v @ (weight @ u). Return it, and the last u.",
            ),
        ),
    ),
)  # fmt: skip
