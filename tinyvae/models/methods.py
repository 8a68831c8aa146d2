"""The public methods of a model: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import require_seed
from ..device import Array, NumpyDevice
from ..errors import ConfigError, DataError
from ..layers.layer import Layer, Shape, Site, Twin
from ..layers.likelihood import Likelihood
from ..layers.priors import Prior, StandardNormal

EVAL_ROWS = 256  # rows of the twins behind encode, decode and the evaluation passes


@dataclass(frozen=True)
class Abilities:
    """What a model can do; each class states it as `can`, and the rest of the package asks here.

    codes: it encodes images. posterior: a code is a distribution, q(z|x) = N(z_mean, z_sigma²), with a KL divergence in
    the loss. likelihood: it scores pixels by a likelihood, which can be chosen. bound: its loss bounds log p(x), so
    importance sampling can estimate log p(x). analytic_kl: the KL in that bound is a formula, not an estimate.
    labels: encoder and decoder take a label. game: what its discriminator judges, "images" or "codes"; "" for none.
    """

    codes: bool = True
    posterior: bool = False
    likelihood: bool = True
    bound: bool = False
    analytic_kl: bool = False
    labels: bool = False
    game: str = ""


class Methods:
    """encode, decode, reconstruct, sample, interpolate, and the checks of their arrays."""

    can = Abilities()
    classes = 0  # the labels of a conditional model
    parts: dict[str, Layer]
    image_shape: Shape
    latent_dim: int
    prior: Prior | None
    dtype: np.dtype[Any]
    device: NumpyDevice
    _part_twins: dict[tuple[str, int], tuple[list[Array], Twin]]

    def site(self, part: str, rows: int, role: str, samples: int = 1) -> Site:
        """The site where a part is bound."""
        raise NotImplementedError

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood layer."""
        layer = self.parts["likelihood"]
        assert isinstance(layer, Likelihood)
        return layer

    def encode(self, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """z_mean (N, latent) and z_log_sigma (N, latent), or None for a deterministic encoder.

        x: (N, H, W, C) or (N, H, W), uint8 or float in [0, 1]. labels: (N,) for a conditional model, and for no other.
        """
        x = self.as_images(x)
        h = self._apply("encoder", x, *self.one_hot(labels, len(x)))
        if not self.can.posterior:
            return h, None
        return h[:, : self.latent_dim].copy(), h[:, self.latent_dim :].copy()

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The likelihood's mean image (N, H, W, C) for codes z (N, latent). labels: as in `encode`."""
        z = self.as_codes(z)
        outputs = self._apply("decoder", z, *self.one_hot(labels, len(z)))
        return self.shown(outputs).reshape(-1, *self.image_shape)

    def shown(self, outputs: np.ndarray) -> np.ndarray:
        """The images that the decoder's outputs stand for: the likelihood's mean."""
        return self.likelihood.mean(outputs)

    def as_codes(self, z: np.ndarray) -> np.ndarray:
        """z as (N, latent) in the model's dtype. A DataError says what does not fit."""
        z = _as_array("z", z)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise DataError(f"z must be (N, {self.latent_dim}), got shape {z.shape}; use z[None] for a single code")
        if z.dtype.kind not in "fiu":
            raise DataError(f"z has dtype {z.dtype}; use floats")
        return self._as_floats("z", z)

    def reconstruct(self, x: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """decode(z_mean): no noise, so twice the same. labels: as in `encode`."""
        return self.decode(self.encode(x, labels)[0], labels)

    def sample(
        self, n: int, seed: int | None = None, prior: Prior | None = None, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images decoded from draws of the model's prior, or of `prior`.

        seed: None draws a fresh one. labels: as in `encode`; None lets a conditional model cycle through its classes.
        """
        z = self.draw_prior(n, seed, prior)
        return self.decode(z, np.arange(n) % self.classes if self.can.labels and labels is None else labels)

    def draw_prior(self, n: int, seed: int | None = None, prior: Prior | None = None) -> np.ndarray:
        """Codes (n, latent) by Philox, stream `sample`: from `prior`, None for the model's, or N(0, I) where it has
        none."""
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"n={n!r} must be an integer of at least 1, the number of images to draw")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        require_seed("seed", seed)
        source = prior or self.prior or StandardNormal(self.latent_dim)
        return source.sample(n, seed).astype(self.dtype)

    def interpolate(
        self, x_a: np.ndarray, x_b: np.ndarray, steps: int = 8, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """decode of `steps` codes on the straight segments from encode(x_a) to encode(x_b), both ends included.

        x_a, x_b: one image (H, W, C) each, giving (steps, H, W, C); or (N, H, W, C) each, giving (N, steps, H, W, C).
        labels: as in `encode`, one for both ends of a segment.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            raise ConfigError(f"steps={steps!r} must be an integer of at least 2, as both ends are included")
        single = np.ndim(x_a) == 3 and np.shape(x_a) == self.image_shape
        labels = np.atleast_1d(labels) if single and labels is not None else labels
        z_a, z_b = (self.encode(np.asarray(x)[None] if single else x, labels)[0] for x in (x_a, x_b))
        if z_a.shape != z_b.shape:
            raise DataError(f"x_a and x_b must have equally many images, got {len(z_a)} and {len(z_b)}")
        t = np.linspace(0, 1, steps, dtype=self.dtype)[None, :, None]
        z = (1 - t) * z_a[:, None] + t * z_b[:, None]  # (N, steps, latent)
        every = None if labels is None else np.repeat(labels, steps)
        strips = self.decode(z.reshape(-1, self.latent_dim), every).reshape(-1, steps, *self.image_shape)
        return strips[0] if single else strips

    def one_hot(self, labels: np.ndarray | None, n: int) -> tuple[np.ndarray, ...]:
        """(labels as rows with a 1 at their class,), n of them; () in a model that takes none. Or a ConfigError."""
        name = type(self).__name__
        if not self.can.labels:
            if labels is not None:
                raise ConfigError(f"labels= are for a conditional model, and {name} is none; leave them out")
            return ()
        if labels is None:
            raise ConfigError(f"{name} needs labels=, a class from 0 to {self.classes - 1} for each image")
        labels = _as_array("labels", labels)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise DataError(f"labels must be {n} whole numbers, one per image, got {labels.dtype} {labels.shape}")
        if n and not 0 <= labels.min() <= labels.max() < self.classes:
            raise DataError(f"labels run from {labels.min()} to {labels.max()}; {name} has 0 to {self.classes - 1}")
        return (np.eye(self.classes, dtype=self.dtype)[labels],)

    def as_images(self, x: np.ndarray) -> np.ndarray:
        """x as (N, H, W, C) in the model's dtype: uint8 is divided by 255. A DataError says what does not fit."""
        x = _as_array("x", x)
        if x.ndim == 3 and self.image_shape[2] == 1 and x.shape[1:] == self.image_shape[:2]:
            x = x[..., None]
        if x.ndim != 4 or x.shape[1:] != self.image_shape:
            wanted = "(N, " + ", ".join(map(str, self.image_shape)) + ")"
            raise DataError(f"x must have shape {wanted}, got {x.shape}; use x[None] for a single image")
        if x.dtype == np.uint8:
            return x.astype(self.dtype) / self.dtype.type(255)
        if x.dtype.kind != "f":
            raise DataError(f"x has dtype {x.dtype}; use uint8 or floats in [0, 1]")
        return self._as_floats("x", x)

    def _as_floats(self, name: str, array: np.ndarray) -> np.ndarray:
        """A copy in the model's dtype; a DataError where a value is not finite in it."""
        with np.errstate(over="ignore"):
            floats = array.astype(self.dtype)
        if not np.isfinite(floats).all():
            raise DataError(f"{name} holds values that are not finite in {self.dtype}; remove or replace them first")
        return floats

    def _apply(self, part: str, *xs: np.ndarray) -> np.ndarray:
        """One part on any number of rows: full twins of EVAL_ROWS, the last one filled up with zeros."""
        count = len(xs[0])
        rows = min(EVAL_ROWS, max(1, count))
        rows = EVAL_ROWS if rows > 16 else 16 if rows > 1 else 1  # three sizes at most, so few twins are kept
        key = (part, rows)
        if key not in self._part_twins:
            buffers = [self.device.empty((rows, *x.shape[1:]), self.dtype) for x in xs]
            self._part_twins[key] = (buffers, self.parts[part].bind(self.site(part, rows, "evaluate")))
        buffers, twin = self._part_twins[key]
        out = np.empty((count, *self.parts[part].out_shape), self.dtype)
        hosts = [np.zeros(buffer.shape, self.dtype) for buffer in buffers]
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            for x, host, buffer in zip(xs, hosts, buffers, strict=True):
                host[: stop - start] = x[start:stop]
                self.device.put(host, buffer)
            out[start:stop] = self.device.get(twin.forward(*buffers))[: stop - start]
        return out


def _as_array(name: str, value: Any) -> np.ndarray:
    """np.asarray, or a DataError where there is no regular array in `value`."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} cannot be made into an array: {error}") from None
