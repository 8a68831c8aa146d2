"""Layers and the VAE's loss against PyTorch's autograd, where PyTorch is installed.
Images are transposed to channels first, and weights to (out, in, KH, KW), at the border."""

import numpy as np
import pytest

from tinyvae.check.harness import LayerHarness
from tinyvae.layers import Bernoulli, Conv2d, ConvTranspose2d, Dense, Gaussian, Latent, SiLU

torch = pytest.importorskip("torch")
F = torch.nn.functional

CLOSE = {"rtol": 1e-10, "atol": 1e-11}
GEOMETRIES = [  # H, W, kernel, stride, padding
    (5, 7, (3, 2), (1, 2), (2, 0)),
    (6, 5, (4, 3), (2, 1), (1, 1)),
    (9, 8, (4, 4), (2, 2), (1, 1)),
    (4, 3, (1, 1), (1, 1), (0, 0)),
    (7, 10, (2, 3), (3, 2), (0, 2)),
]


def leaf(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def images(array):
    """(B, H, W, C) → (B, C, H, W)."""
    return leaf(array.transpose(0, 3, 1, 2))


def back(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def run(layer, in_shape, batch=3, samples=1):
    """Bench, y and grad_y of a layer, with gradients in place."""
    harness = LayerHarness(layer, (in_shape,), batch, samples)
    y = harness.forward()
    grad_y = np.random.default_rng(9).standard_normal(y.shape)
    return harness, y, grad_y


def assert_images_agree(harness, y, grad_y, theirs, x, weight, shift):
    """Outputs and all gradients of a convolution of either kind; shift: the bias, None where there is none."""
    np.testing.assert_allclose(y, back(theirs), **CLOSE)
    theirs.backward(torch.tensor(grad_y.transpose(0, 3, 1, 2)))
    (grad_x,), grads = harness.backward(grad_y), harness.grads()
    np.testing.assert_allclose(grad_x, back(x.grad), **CLOSE)
    np.testing.assert_allclose(grads["weight"], weight.grad.numpy().transpose(2, 3, 1, 0), **CLOSE)
    if shift is not None:
        np.testing.assert_allclose(grads["bias"], shift.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_conv2d(geometry, bias):
    H, W, kernel, stride, padding = geometry
    harness, y, grad_y = run(Conv2d(2, 3, kernel, stride, padding, bias=bias), (H, W, 2))
    x, parameters = images(harness.given[0]), harness.parameters()
    weight = leaf(parameters["weight"].transpose(3, 2, 0, 1))
    shift = leaf(parameters["bias"]) if bias else None
    theirs = F.conv2d(x, weight, shift, stride, padding)
    assert_images_agree(harness, y, grad_y, theirs, x, weight, shift)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_conv_transpose2d(geometry, bias):
    H, W, kernel, stride, padding = geometry
    small = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip((H, W), kernel, stride, padding, strict=True)]
    extra = [
        n - ((m - 1) * s - 2 * p + k) for n, m, k, s, p in zip((H, W), small, kernel, stride, padding, strict=True)
    ]
    layer = ConvTranspose2d(3, 2, kernel, (H, W), stride, padding, bias=bias)
    harness, y, grad_y = run(layer, (*small, 3))
    x, parameters = images(harness.given[0]), harness.parameters()
    weight = leaf(parameters["weight"].transpose(3, 2, 0, 1))  # theirs: (in, out, KH, KW)
    shift = leaf(parameters["bias"]) if bias else None
    theirs = F.conv_transpose2d(x, weight, shift, stride, padding, output_padding=tuple(extra))
    assert_images_agree(harness, y, grad_y, theirs, x, weight, shift)


ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_dense(act):
    harness, y, grad_y = run(Dense(7, 5, act), (7,), batch=4)
    x, weight, bias = (leaf(a) for a in (harness.given[0], *harness.parameters().values()))
    theirs = ACTIVATIONS[act](x @ weight + bias)
    np.testing.assert_allclose(y, theirs.detach().numpy(), **CLOSE)
    theirs.backward(torch.tensor(grad_y))
    (grad_x,), grads = harness.backward(grad_y), harness.grads()
    for ours, tensor in ((grad_x, x), (grads["weight"], weight), (grads["bias"], bias)):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), **CLOSE)


def test_silu():
    harness, y, grad_y = run(SiLU(), (4, 3, 2))
    x = leaf(harness.given[0])
    theirs = F.silu(x)
    theirs.backward(torch.tensor(grad_y))
    np.testing.assert_allclose(y, theirs.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(harness.backward(grad_y)[0], x.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("samples", [1, 3])
def test_latent_with_the_kl_of_torch_distributions(samples):
    B, L, beta = 4, 3, 1.7
    harness, z, grad_z = run(Latent(L), (2 * L,), B, samples)
    h, eps = leaf(harness.given[0]), torch.tensor(harness.device.get(harness.twin.eps))
    mean, sigma = h[:, :L], torch.exp(h[:, L:])
    theirs = mean.repeat_interleave(samples, 0) + sigma.repeat_interleave(samples, 0) * eps
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, sigma), normal(torch.zeros(()), torch.ones(())))
    np.testing.assert_allclose(z, theirs.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(harness.device.get(harness.twin.kl), kl.detach().numpy(), **CLOSE)
    loss = (theirs * torch.tensor(grad_z)).sum() + beta * kl.sum(dim=1).mean()
    loss.backward()
    harness.set_kl_weight(beta)
    np.testing.assert_allclose(harness.backward(grad_z)[0], h.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("layer", [Bernoulli(), Gaussian(0.4)], ids=repr)
def test_likelihoods(layer):
    shape = (4, 3, 2)
    harness = LayerHarness(layer, (shape, shape), 3, samples=2)
    outputs, x = leaf(harness.given[0]), torch.tensor(harness.given[1]).repeat_interleave(2, 0)
    if isinstance(layer, Bernoulli):
        cost = F.binary_cross_entropy_with_logits(outputs, x, reduction="none")
    else:
        cost = -torch.distributions.Normal(outputs, 0.4).log_prob(x)
    nll = cost.sum(dim=(1, 2, 3))
    np.testing.assert_allclose(harness.forward(), nll.detach().numpy(), **CLOSE)
    (nll * torch.tensor(harness.row_scale)).sum().backward()
    np.testing.assert_allclose(harness.backward(None)[0], outputs.grad.numpy(), **CLOSE)
