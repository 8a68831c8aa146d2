"""What a VAE's loss means: from any sums, means and weights to effective beta, implied sigma, nats and bits per pixel.
It knows conventions of writing a loss, and nothing of models or of how one is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import require_choice, require_int, require_number
from ..errors import ConfigError

ERRORS = ("bce", "mse", "rmse")
REDUCTIONS = ("sum", "mean")
LEVELS = 256  # grey levels of a pixel, for bits
WIDE = 0.5  # a sigma of more than this share of the pixels' range takes most of an image for noise


@dataclass(frozen=True)
class Explanation:
    """A loss in the units of this library; `str` of it is the text that `tinyvae explain` prints.

    recon_factor, kl_factor: the loss is recon_factor · (error summed over an image) + kl_factor · (KL summed over the
    latents), both averaged over the batch; for "rmse" recon_factor stands before the RMSE of an image.
    beta: weight of the KL where the reconstruction is in nats per image: a Bernoulli's, or a Gaussian's of sigma = 1.
    sigma: standard deviation, in units of the pixels, of the Gaussian for which that weight is 1; None for "bce". Both
    are None where they depend on an RMSE that was not given. recon, kl: nats per image, neg_elbo their sum, and
    bits_per_pixel that sum per pixel value, for pixels of 8 bits; rmse in units of the pixels; None where not known.
    """

    error: str
    shape: tuple[int, int, int]
    recon_factor: float
    kl_factor: float
    pixel_range: float = 1.0
    beta: float | None = None
    sigma: float | None = None
    rmse: float | None = None
    recon: float | None = None
    kl: float | None = None
    neg_elbo: float | None = None
    bits_per_pixel: float | None = None

    @property
    def pixels(self) -> int:
        """H·W·C, the number of values of an image."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "\n".join(f"{name:<16}{text}" for name, text in (*_form(self), *_weight(self), *_figures(self)))


def explain_objective(
    recon: str = "bce",
    image_shape: tuple[int, int, int] = (28, 28, 1),
    *,
    pixels: str = "sum",
    batch: str = "mean",
    recon_weight: float = 1.0,
    latents: str = "sum",
    kl_batch: str = "mean",
    kl_weight: float = 1.0,
    latent_dim: int | None = None,
    batch_size: int | None = None,
    recon_value: float | None = None,
    kl_value: float | None = None,
    rmse: float | None = None,
    pixel_range: float = 1.0,
) -> Explanation:
    """What recon_weight · (reconstruction error) + kl_weight · KL minimises, whatever is summed and whatever averaged.

    recon: "bce", cross-entropy in nats; "mse", squared error without a ½ (write a ½ into recon_weight); "rmse", the
    root of the squared error of each image (where the root is taken of a whole batch, read its RMSE for the image's).
    image_shape: (H, W, C). pixels, batch: "sum" or "mean" of the error over an image's H·W·C values and over the batch.
    latents, kl_batch: the same of KL = −½ (1 + log-variance − mean² − variance). latent_dim, batch_size: needed where a
    term is averaged over the latents, or one of the two is summed over the batch and the other averaged. recon_value,
    kl_value: what a program logs for the two terms, reduced as it does but without weights, to be turned into nats per
    image. rmse: of the reconstructions, where "rmse" needs it. pixel_range: the length of the interval that pixels lie
    in: 1 for [0, 1], 2 for [−1, 1], 255 for bytes.

    Up to a factor, a squared error gives ½ Σ (x − mean)² + beta · KL, which is minimal where
    −log N(x; mean, sigma²) + KL is, sigma² = beta: Rybkin et al. 2021. A ConfigError says what is missing.
    """
    reduced = {"pixels": pixels, "batch": batch, "latents": latents, "kl_batch": kl_batch}
    require_choice("recon", recon, ERRORS)
    for name, choice in reduced.items():
        require_choice(name, choice, REDUCTIONS)
    for name, number in (("recon_weight", recon_weight), ("pixel_range", pixel_range), ("rmse", rmse)):
        if number is not None:
            require_number(name, number, 0, open_=True)
    for name, number in (("kl_weight", kl_weight), ("recon_value", recon_value), ("kl_value", kl_value)):
        if number is not None:
            require_number(name, number, 0)
    for length in image_shape:
        require_int("image_shape", length, 1, " each: height, width and channels")
    count, logged = math.prod(image_shape), recon_value is not None or kl_value is not None
    images = 1.0  # where both terms are summed over the batch it cancels
    if "sum" in (batch, kl_batch) and (batch != kl_batch or logged):
        images = _needed("batch_size", batch_size, "a term is summed over the batch")
    numbers = _needed("latent_dim", latent_dim, "the KL is averaged over the latents") if latents == "mean" else 1.0
    root = recon == "rmse"
    of_image = {"sum": math.sqrt(count) if root else 1.0, "mean": 1.0 if root else 1 / count}[pixels]
    of_recon = of_image * (images if batch == "sum" else 1)  # what stands before the error of one image
    of_kl = (images if kl_batch == "sum" else 1) / numbers
    shape, a, b = (image_shape[0], image_shape[1], image_shape[2]), recon_weight * of_recon, kl_weight * of_kl
    error = None if recon_value is None else recon_value / of_recon
    if recon != "bce" and rmse is None and error:
        rmse = error if root else math.sqrt(error / count)
    beta = _beta(recon, count, a, b, rmse)
    sigma = None if beta is None or recon == "bce" else math.sqrt(beta)
    plain = Explanation(recon, shape, a, b, pixel_range, beta, sigma, rmse)
    return _in_nats(plain, error, None if kl_value is None else kl_value / of_kl)


def _needed(name: str, value: int | None, why: str) -> float:
    if value is None:
        raise ConfigError(f"{name}=None: {why}, so give --{name.replace('_', '-')} N")
    require_int(name, value, 1)
    return float(value)


def _beta(recon: str, count: int, a: float, b: float, rmse: float | None) -> float | None:
    """The weight of the KL beside nats per image, from the factors a and b of the two terms.

    Squared error: a Σ d² = 2a · ½ Σ d². RMSE: its derivative is that of Σ d² / (2 · RMSE · P), P values, RMSE held, so
    that it acts, where it stands, as a squared error with the factor a / (2 · RMSE · P).
    """
    if recon == "bce":
        return b / a
    if recon == "mse":
        return b / (2 * a)
    return None if rmse is None else b * rmse * count / a


def _in_nats(e: Explanation, error: float | None, kl: float | None) -> Explanation:
    """With nats per image and bits per pixel, as far as they are known. error: of an image, summed over its values."""
    levels = 0.0  # log of the number of grey levels in a unit of the pixels: a level's share of a density
    recon = error
    if e.error != "bce":
        levels, recon = math.log((LEVELS - 1) / e.pixel_range), None
        if e.rmse is not None and e.sigma:
            terms = 0.5 * (e.rmse / e.sigma) ** 2 + math.log(e.sigma) + 0.5 * math.log(2 * math.pi)
            recon = e.pixels * terms
    total = None if recon is None or kl is None else recon + kl
    bits = None if total is None else (total / e.pixels + levels) / math.log(2)
    return Explanation(
        e.error, e.shape, e.recon_factor, e.kl_factor, e.pixel_range, e.beta, e.sigma, e.rmse, recon, kl, total, bits
    )


# ---------------------------------------------------------------------------------------------- in words

Lines = list[tuple[str, str]]


def _form(e: Explanation) -> Lines:
    """The loss, both terms summed over an image."""
    H, W, C = e.shape
    error = {"bce": "cross-entropy", "mse": "squared error", "rmse": "RMSE"}[e.error]
    of = "of an image" if e.error == "rmse" else "summed over values"
    text = f"{e.recon_factor:.6g} · {error} ({of}) + {e.kl_factor:.6g} · KL (summed over latents)"
    return [("image", f"{H}×{W}×{C}, {e.pixels:,} values"), ("loss", text)]


def _weight(e: Explanation) -> Lines:
    """beta and sigma, and how to ask for the same here."""
    if e.beta is None:
        slope = f"{e.kl_factor * e.pixels / e.recon_factor:.4g}"
        return [
            ("effective beta", f"changes while the error falls: beta = sigma² = {slope} · RMSE; add --rmse X"),
            ("", f"at an RMSE of {slope} sigma is the RMSE itself, where --likelihood rmse holds it throughout"),
        ]
    if e.beta == 0:
        return [("effective beta", "0: there is no KL in the loss, which makes it an autoencoder's")]
    if e.error == "bce":
        words = "the evidence lower bound itself" if math.isclose(e.beta, 1) else _side(e.beta)
        same = f"tinyvae train --likelihood bernoulli --beta {e.beta:.4g}"
        return [("effective beta", f"{e.beta:.4g}: {words}"), ("in tinyvae", same)]
    assert e.sigma is not None
    lines = [
        ("effective beta", f"{e.beta:.4g} at unit variance: ½ Σ (x − mean)² + {e.beta:.4g} · KL, but for a factor"),
        ("implied sigma", f"{e.sigma:.4g}: −log N(x; mean, {e.sigma:.4g}²) + KL has the same minimum, with beta = 1"),
    ]
    if e.sigma > WIDE * e.pixel_range:
        share = f"{100 * e.sigma / e.pixel_range:.0f} % of the pixels' range"
        lines.append(("", f"that is {share}: most of an image passes for noise, so expect blur and idle latents"))
    if e.error == "mse":
        scaled = e.beta / e.pixel_range**2
        where = "" if e.pixel_range == 1 else ", on pixels in [0, 1]"
        lines.append(("in tinyvae", f"tinyvae train --likelihood mse --beta {scaled:.4g}{where}"))
    return lines


def _side(beta: float) -> str:
    return f"the KL weighs {'more' if beta > 1 else 'less'} than in the evidence lower bound"


def _figures(e: Explanation) -> Lines:
    """Logged values in nats and bits."""
    given = (("recon", e.recon), ("KL", e.kl), ("−ELBO", e.neg_elbo))
    lines = [(name, f"{nats:,.2f} nats per image") for name, nats in given if nats is not None]
    if e.rmse is not None:
        lines.append(("RMSE", f"{e.rmse:.4g} per value"))
    if e.bits_per_pixel is not None:
        words = "values of 8 bits, the density constant over a level"
        lines.append(
            ("bits per pixel", f"{e.bits_per_pixel:.4f}, for {words if e.error != 'bce' else 'values 0 and 1'}")
        )
    return lines
