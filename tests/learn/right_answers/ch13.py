"""Chapter 13: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import numpy as np


def discriminator_by_target(grad_y, real, drawn):
    """One loop over all logits, each with its target."""
    out = []
    for logits, target in ((real, 1), (drawn, 0)):
        out.append([grad_y * (1 / (1 + np.exp(-a)) - target) / len(logits) for a in logits])
    return out


def discriminator_by_tanh(grad_y, real, drawn):
    sigmoid = lambda a: (1 + np.tanh(a / 2)) / 2  # noqa: E731
    return -grad_y * sigmoid(-real) / real.size, grad_y * sigmoid(drawn) / drawn.size


def discriminator_together(grad_y, real, drawn):
    logits, target = np.concatenate([real, drawn]), np.repeat([1.0, 0.0], [len(real), len(drawn)])
    count = np.repeat([len(real), len(drawn)], [len(real), len(drawn)])
    grad = grad_y * (1 - 1 / (1 + np.exp(logits)) - target) / count
    return grad[: len(real)], grad[len(real) :]


def generator_image_by_image(grad_y, z, weight, bias, u):
    grad_weight, grad_bias = np.zeros_like(weight), np.zeros_like(bias)
    for code in z:
        logit = u @ (code @ weight + bias)
        grad_logit = -grad_y / (1 + np.exp(logit)) / len(z)
        grad_weight += np.outer(code, grad_logit * u)
        grad_bias += grad_logit * u
    return grad_weight, grad_bias


def generator_by_outer(grad_y, z, weight, bias, u):
    """Of rank one: all images push along u."""
    share = 1 / (1 + np.exp(z @ (weight @ u) + bias @ u))
    return -grad_y * np.outer((share[:, None] * z).mean(axis=0), u), -grad_y * share.mean() * u


def generator_by_einsum(grad_y, z, weight, bias, u):
    logits = np.einsum("bl,ln,n->b", z, weight, u) + np.dot(bias, u)
    grad_logits = grad_y * (np.exp(logits) / (1 + np.exp(logits)) - 1) / len(logits)
    return [np.einsum("bl,b,n->ln", z, grad_logits, u), np.einsum("b,n->n", grad_logits, u)]


def vaegan_in_two_passes(z, x, decoder, features, head, gamma):
    """The decoder's losses go back as two gradients of the features, each by itself."""
    B, recon = len(z), z @ decoder
    grad_f = (recon - x) @ features / B
    grad_fool = np.outer(-1 / (1 + np.exp(recon @ features @ head)), head) / B
    through = features @ features.T
    return (recon - x) @ through @ decoder.T / B, z.T @ (gamma * grad_f @ features.T) + z.T @ (grad_fool @ features.T)


def vaegan_row_by_row(z, x, decoder, features, head, gamma):
    grad_z, grad_decoder = [], np.zeros_like(decoder)
    for code, image in zip(z, x, strict=True):
        f = code @ decoder @ features
        d = 1 / (1 + np.exp(-(f @ head)))
        likeness, fooling = features @ (f - features.T @ image), features @ ((d - 1) * head)
        grad_z.append(decoder @ likeness / len(z))
        grad_decoder += np.outer(code, gamma * likeness + fooling) / len(z)
    return grad_z, grad_decoder


def vaegan_by_slices(z, x, decoder, features, head, gamma):
    """Both gradients stacked at the features, taken back together, and split behind."""
    f = z @ decoder @ features
    at_f = np.stack([f - x @ features, -head / (1 + np.exp(f @ head))[:, None]]) / len(z)  # (2, B, K)
    likeness, fooling = at_f @ features.T
    return np.einsum("bn,ln->bl", likeness, decoder), np.einsum("bl,bn->ln", z, likeness * gamma + fooling)


def norm_by_the_square(weight, u, rounds):
    """u is turned by weightᵀ weight; only directions matter until the end."""
    square = weight.T @ weight
    before = np.linalg.matrix_power(square, rounds - 1) @ u
    v = weight @ before
    u = square @ before
    return np.linalg.norm(u) / np.linalg.norm(v), u / np.linalg.norm(u)


def norm_with_a_while(weight, u, rounds):
    while rounds:
        v = weight.dot(u)
        v = v / np.sqrt((v**2).sum())
        u = v.dot(weight)
        sigma = np.sqrt((u**2).sum())
        u = u / sigma
        rounds -= 1
    return sigma, u


def norm_entry_by_entry(weight, u, rounds):
    u, (n_in, n_out) = list(u), weight.shape
    for _ in range(rounds):
        v = [sum(weight[i, j] * u[j] for j in range(n_out)) for i in range(n_in)]
        length = sum(a * a for a in v) ** 0.5
        v = [a / length for a in v]
        u = [sum(weight[i, j] * v[i] for i in range(n_in)) for j in range(n_out)]
        sigma = sum(a * a for a in u) ** 0.5
        u = [a / sigma for a in u]
    return sigma, u


ANSWERS = {
    "discriminator_grad": (discriminator_by_target, discriminator_by_tanh, discriminator_together),
    "generator_grad": (generator_image_by_image, generator_by_outer, generator_by_einsum),
    "vaegan_grad": (vaegan_in_two_passes, vaegan_row_by_row, vaegan_by_slices),
    "spectral_norm": (norm_by_the_square, norm_with_a_while, norm_entry_by_entry),
}
