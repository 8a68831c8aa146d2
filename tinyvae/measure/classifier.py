"""A small classifier of our own layers: a judge that recognises images, and features to compare them by.
The metrics computed with it are in classifier_metrics."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..config import DEFAULT_DEVICE, TrainConfig, require_choice, require_int
from ..datasets import Dataset
from ..errors import CheckpointError, DataError
from ..kernels.clock import CURSOR
from ..layers.conv import Conv2d
from ..layers.dense import Dense
from ..layers.join import Sequential
from ..layers.layer import Shape, size_of
from ..layers.reshape import Flatten
from ..models import Abilities, Batch, Model, Player
from ..models.networks import conv_stages
from ..training.step import Feed, Step

CPU = ("numba", "numpy")  # labels and softmax stay on the host


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(l) / Σ exp(l) over the last axis; the largest logit is taken off first, so that nothing overflows."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_nll(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """nll[b] = log Σ_c exp(l[b, c]) − l[b, label[b]] in nats, and its gradient softmax(l) − onehot(label).

    logits: (B, classes). labels: (B,) whole numbers. nll: (B,). The gradient, of each row's own nll: (B, classes).
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    grad = e / total
    grad[rows, labels] -= 1
    return np.log(total[:, 0]) - shifted[rows, labels], grad


def narrow_encoder(image_shape: Shape, features: int) -> Sequential:
    """The zoo's convolutions at half their width, 16, 32, …, then a ReLU layer of `features` numbers."""
    stages: list[Conv2d] = []
    shape = image_shape
    for s in conv_stages(image_shape):
        stages.append(Conv2d(shape[2], s.c_out // 2, s.kernel, s.stride, s.padding, "relu", init="he"))
        shape = stages[-1].declare(shape)
    return Sequential(*stages, Flatten(), Dense(size_of(shape), features, "relu", init="he"))


class Classifier(Model):
    """p(label | x) = softmax(head(encoder(x))), loss = mean over the batch of −log p(label | x), nats.

    encoder: see `narrow_encoder`; `encode(x)[0]` gives its `features` numbers, (N, features).
    head: (features,) → (classes,). With g = (softmax(logits) − onehot(label)) / B: grad_features = g weightᵀ, and so on
    back through the layers. LeCun et al. 1998.
    """

    can = Abilities(likelihood=False)
    figure_names = ("loss",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        features: int = 64,
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        require_int("classes", classes, 2)
        require_int("features", features, 1)
        require_choice("device", device, CPU)
        parts = {"encoder": narrow_encoder(image_shape, features), "head": Dense(features, classes)}
        players = (Player("classifier", tuple(parts)),)
        super().__init__(parts, image_shape, features, players, device=device, dtype=dtype, seed=seed)
        self.n_classes = classes
        self.labels = np.empty(0, np.int64)  # in the feed's order, while training

    def loss(self, batch: Batch) -> None:
        """Forward: fills `batch.metrics` = [loss, loss, 0] and the gradient that `grad` sends back."""
        logits = batch.twins["head"].forward(batch.twins["encoder"].forward(batch.x))
        start = int(batch.clock.counters[CURSOR])
        nll, grad = softmax_nll(logits, self.labels[start : start + batch.rows])
        self.grad_logits = grad / self.dtype.type(batch.rows)
        self.kernels.objective(nll, batch.kl, batch.clock.kl_weight, batch.sums, batch.metrics)

    def grad(self, player: Player, batch: Batch) -> None:
        batch.twins["encoder"].backward(batch.twins["head"].backward(self.grad_logits))

    def fit(self, images: np.ndarray, labels: np.ndarray, epochs: int = 4, lr: float = 3e-3) -> Classifier:
        """Trains on images (N, H, W, C) with labels (N,) from 0 up, by Adam with a cosine schedule. Returns itself."""
        labels = np.asarray(labels, np.int64)
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= self.n_classes:
            raise DataError(f"labels must be {len(images)} whole numbers from 0 to {self.n_classes - 1}, one per image")
        feed = Feed(self, images)
        self.clock.set(step=0)
        step = Step(self, feed, TrainConfig(epochs=epochs, lr=lr, schedule="cosine"))
        for epoch in range(epochs):
            feed.shuffle(self.seed, epoch)
            self.labels = labels[feed.order]
            for _ in range(step.per_epoch):
                step.run()
        return self

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """p(label | x), (N, classes) float64."""
        return softmax(self._apply("head", self.encode(x)[0]).astype(np.float64))

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images whose most probable label is theirs."""
        return float((self.probabilities(images).argmax(axis=1) == labels).mean())


def train_classifier(
    data: Dataset,
    epochs: int = 4,
    seed: int = 0,
    device: str = DEFAULT_DEVICE,
    cache: str | os.PathLike[str] | None = None,
) -> Classifier:
    """A classifier of a labelled data set, trained on its training part.

    cache: a file (.npz) that is read where it is there, and written where not, so that it is trained once.
    """
    if data.train_labels is None:
        raise DataError(f"{data.name} has no labels to train a classifier on; use data with labels")
    classes = int(data.train_labels.max()) + 1
    judge = Classifier(data.image_shape, classes, device=device, seed=seed)
    if cache is not None and Path(cache).exists():
        return _read(judge, Path(cache), data.name)
    judge.fit(data.train_images, data.train_labels, epochs)
    if cache is not None:
        _write(judge, Path(cache), data.name)
    return judge


def _write(judge: Classifier, path: Path, name: str) -> None:
    """The flat buffer of parameters and what it is of, all or nothing."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, values=judge.table.values, shape=judge.image_shape, classes=judge.n_classes, data=name)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(judge: Classifier, path: Path, name: str) -> Classifier:
    """Fills a classifier of the same kind from what `_write` left."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            same = tuple(stored["shape"]) == judge.image_shape and int(stored["classes"]) == judge.n_classes
            values, of = stored["values"], str(stored["data"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} holds no classifier ({error}); delete it to train anew") from None
    if not same or of != name or values.shape != judge.table.values.shape:
        raise CheckpointError(f"{path} holds a classifier of {of}, not of this {name}; delete it or name another file")
    judge.table.values[:] = values
    return judge
