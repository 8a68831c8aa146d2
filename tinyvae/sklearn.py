"""A VAE as a scikit-learn estimator: rows of numbers in, codes out, in a Pipeline and a grid search.
It knows scikit-learn's conventions (extra `sklearn`); the model, its training and its likelihood are the package's."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"tinyvae.sklearn needs scikit-learn 1.6 or newer ({error}); pip install scikit-learn") from None

from .config import DEFAULT_DEVICE, DTYPES, TrainConfig
from .errors import ConfigError, DataError
from .measure.evaluate import importance_sampling
from .models import Model, zoo
from .training.step import Feed, Step

SEEDS = 2**31 - 1
ROUNDING = 1e-6  # a scaler may leave 1.0000000000000002


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """fit, transform, inverse_transform, score_samples and sample of a VAE on X (n_samples, n_features).

    transform: z_mean (n_samples, latent_dim). inverse_transform: the decoder's mean. score_samples: log p(x) in nats,
    importance-sampled with `draws` draws, a lower bound in expectation (Burda et al. 2016, equation 8); every row gets
    the same draws, so that its score does not depend on its neighbours. score: their mean, so that a grid search
    compares likelihoods (of one data set in one scaling; `likelihood` and `sigma` are part of the model).

    image_shape (H, W, C): of a row, for convolutional models; None takes a row for an image of one line. Rows are taken
    as they are, so put a scaler before: [0, 1] for "bernoulli", about unit variance for "gaussian". random_state: of
    weights, order and noise. Fitted: model_, n_features_in_, n_iter_ (steps), loss_ (of the last step's batch).
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        model: str = "vae",
        hidden: tuple[int, ...] = (100,),
        image_shape: tuple[int, int, int] | None = None,
        likelihood: str = "gaussian",
        sigma: float = 0.3,
        beta: float = 1.0,
        warmup: int = 0,
        epochs: int = 20,
        batch_size: int = 128,
        lr: float = 1e-3,
        draws: int = 64,
        dtype: str = "float64",
        device: str = DEFAULT_DEVICE,
        random_state: Any = None,
    ) -> None:
        self.latent_dim, self.model, self.hidden, self.image_shape = latent_dim, model, hidden, image_shape
        self.likelihood, self.sigma, self.beta, self.warmup = likelihood, sigma, beta, warmup
        self.epochs, self.batch_size, self.lr, self.draws = epochs, batch_size, lr, draws
        self.dtype, self.device, self.random_state = dtype, device, random_state

    def fit(self, X: Any, y: Any = None) -> VAETransformer:
        """Trains a new model on X; y is ignored. Returns itself."""
        X = self._rows(X, reset=True)
        self.model_ = self._build(int(check_random_state(self.random_state).randint(SEEDS)))
        images = X.reshape(len(X), *self.model_.image_shape)
        config = TrainConfig(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, beta=self.beta, warmup=self.warmup
        )
        feed = Feed(self.model_, images)
        step = Step(self.model_, feed, config)
        for epoch in range(self.epochs):
            feed.shuffle(self.model_.seed, epoch)
            for _ in range(step.per_epoch):
                batch = step.run()
        self.n_iter_, self.loss_ = step.done, float(self.model_.device.get(batch.metrics)[0])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Codes z_mean (n_samples, latent_dim), in X's dtype."""
        X = self._known(X)
        return self.model_.encode(self._images(X))[0].astype(X.dtype)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The mean row (n_samples, n_features) that each code stands for."""
        check_is_fitted(self)
        Z = np.asarray(Z)
        dtype = Z.dtype if Z.dtype in (np.float32, np.float64) else np.float64
        return self.model_.decode(Z).reshape(len(Z), -1).astype(dtype)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x), nats, (n_samples,): see the class."""
        X = self._known(X)
        return -importance_sampling(self.model_, self._images(X), self.draws, common=True).nll

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """New rows (n_samples, n_features): decoder means of z ~ N(0, I), without the likelihood's noise."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ConfigError(f"n_samples={n_samples!r} must be an integer of at least 1")
        seed = int(check_random_state(random_state).randint(SEEDS))
        return self.model_.sample(int(n_samples), seed).reshape(n_samples, -1)

    # ------------------------------------------------------------------------------------------ inside

    def _rows(self, X: Any, reset: bool) -> np.ndarray:
        X = validate_data(self, X, dtype=[np.dtype(name) for name in reversed(DTYPES)], reset=reset)
        if self.likelihood == "bernoulli" and (X.min() < -ROUNDING or X.max() > 1 + ROUNDING):
            raise DataError(
                f"X goes from {X.min():g} to {X.max():g}, and likelihood='bernoulli' is for [0, 1]; "
                "put MinMaxScaler(clip=True) before, or take likelihood='gaussian'"
            )
        return X

    def _known(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._rows(X, reset=False)

    def _images(self, X: np.ndarray) -> np.ndarray:
        return X.reshape(len(X), *self.model_.image_shape)

    def _build(self, seed: int) -> Model:
        """The untrained model for `n_features_in_` numbers."""
        shape = self.image_shape or (1, self.n_features_in_, 1)
        if np.prod(shape) != self.n_features_in_:
            raise ConfigError(f"image_shape={shape} does not hold the {self.n_features_in_} features of a row")
        config = zoo.configure(
            model=self.model, image_shape=shape, latent_dim=self.latent_dim, hidden=self.hidden,
            likelihood=self.likelihood, sigma=self.sigma, dtype=self.dtype, seed=seed,
        )  # fmt: skip
        model = zoo.from_config(config, self.device)
        if not model.can.bound:
            raise ConfigError(f"model={self.model!r} has no likelihood of a row; use 'vae' or 'conv-vae'")
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, whose buffers and compiled ops belong to this process, but with its numbers."""
        state = dict(super().__getstate__())
        model = state.pop("model_", None)
        if model is not None:
            state["_stored"] = model.seed, model.device.get(model.table.values), model.device.get(model.table.state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        stored = state.pop("_stored", None)
        super().__setstate__(state)
        if stored is not None:
            self.model_ = self._build(stored[0])
            self.model_.device.put(stored[1], self.model_.table.values)
            self.model_.device.put(stored[2], self.model_.table.state)

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
