"""The latent layer: reparameterised sampling, with its KL divergence to N(0, I)."""

from __future__ import annotations

from ..device import Array
from ..errors import ShapeError
from .layer import Example, Layer, Shape, Site, Twin


class Latent(Layer):
    """z = z_mean + exp(z_log_sigma) · eps,  eps ~ N(0, I)
    KL(q(z|x) ‖ N(0, I)) = −½ Σ (1 + 2 z_log_sigma − z_mean² − exp(2 z_log_sigma))

    h: (B, 2·latent), z_mean in the first half and z_log_sigma, the logarithm of the standard deviation, in the second.
    z, eps: (R, latent), R = B·samples, row r of image r // samples. kl: (B, latent), nats.
    grad_mean      = Σ_k grad_z                                 + kl_weight / B · z_mean
    grad_log_sigma = Σ_k grad_z · eps · exp(z_log_sigma)        + kl_weight / B · (exp(2 z_log_sigma) − 1)
    The KL is part of the objective, not of z: backward adds its gradient here and nowhere else.
    Kingma & Welling 2013, equations 9 and 10.
    """

    noisy = True

    def __init__(self, latent_dim: int) -> None:
        if latent_dim < 1:
            raise ShapeError(f"Latent({latent_dim}): the latent dimension must be at least 1")
        self.latent_dim = latent_dim

    def shape(self, *in_shapes: Shape) -> Shape:
        if in_shapes[0] != (2 * self.latent_dim,):
            wanted = 2 * self.latent_dim
            raise ShapeError(f"{self}: expected ({wanted},), z_mean and z_log_sigma side by side, got {in_shapes[0]}")
        return (self.latent_dim,)

    def bind(self, site: Site) -> Twin:
        return LatentTwin(self, site)

    def describe(self) -> str:
        return str(self.latent_dim)

    @classmethod
    def examples(cls) -> list[Example]:
        sizes = ((1, 2, 1), (3, 5, 1), (2, 3, 4), (7, 2, 3))
        return [Example(Latent(dim), ((2 * dim,),), batch, samples) for dim, batch, samples in sizes]


class LatentTwin(Twin):
    """Latent on fixed buffers; eps is drawn at the clock's step, so the noise is fixed while the clock stands."""

    def __init__(self, layer: Latent, site: Site) -> None:
        B, R, L = site.rows, site.rows * site.samples, layer.latent_dim
        self.eps, self.z, self.kl = site.empty(R, L), site.empty(R, L), site.empty(B, L)
        self.grad_h = site.empty(B, 2 * L)
        self.counters, self.kl_weight, self.stream = site.clock.counters, site.clock.kl_weight, site.stream()
        self.philox_normal = site.op("philox_normal")
        self.latent, self.latent_grad = site.op("latent"), site.op("latent_grad")

    def forward(self, *xs: Array) -> Array:
        (self.h,) = xs
        self.philox_normal(self.counters, self.stream, self.eps)
        self.latent(self.h, self.eps, self.z, self.kl)
        return self.z

    def backward(self, grad_y: Array) -> Array:
        self.latent_grad(self.h, self.eps, grad_y, self.kl_weight, self.grad_h)
        return self.grad_h
