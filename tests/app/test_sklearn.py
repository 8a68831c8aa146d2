"""The scikit-learn estimator: its own common checks, a pipeline, a grid search, pickles, and the likelihood it returns.
Skipped where scikit-learn is missing."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tinyvae.errors import ConfigError, DataError
from tinyvae.measure.evaluate import importance_sampling
from tinyvae.sklearn import VAETransformer

SMALL = {"hidden": (16,), "epochs": 5, "random_state": 0}


def rows(n=300, seed=0):
    """Two numbers make five, with a little noise: what a code of two can hold."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ np.random.default_rng(9).normal(size=(2, 5)) + 0.05 * rng.normal(size=(n, 5))


@pytest.fixture(autouse=True)
def numpys_random_state_is_put_back():
    """scikit-learn's checks seed it."""
    state = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


@pytest.fixture(scope="module")
def fitted():
    return VAETransformer(2, epochs=150, lr=5e-3, sigma=0.2, random_state=0).fit(rows())


@parametrize_with_checks([VAETransformer(epochs=5)])
def test_the_common_checks(estimator, check):
    check(estimator)


def test_codes_hold_the_rows(fitted):
    X = rows(200, 1)
    codes = fitted.transform(X)
    assert codes.shape == (200, 2)
    again = fitted.inverse_transform(codes)
    assert again.shape == X.shape
    assert np.square(X - again).mean() < 0.1 * X.var()
    assert fitted.sample(7, random_state=0).shape == (7, 5)
    np.testing.assert_array_equal(fitted.sample(7, random_state=0), fitted.sample(7, random_state=0))


def test_score_is_the_importance_sampled_likelihood(fitted):
    X = rows(50, 2)
    scores = fitted.score_samples(X)
    direct = -importance_sampling(fitted.model_, X.reshape(50, 1, 5, 1), 64).nll  # other draws, the same quantity
    assert abs((scores - direct).mean()) < 0.2
    assert fitted.score(X) == pytest.approx(scores.mean())
    assert fitted.score(X) > fitted.score(X + 3) + 10


def test_scores_do_not_depend_on_the_neighbours(fitted):
    X = rows(20, 3)
    np.testing.assert_allclose(fitted.score_samples(X)[5:9], fitted.score_samples(X[5:9]), rtol=1e-12)


def test_pipeline_and_grid_search():
    """More noise than there is costs likelihood: the search takes the smaller sigma."""
    pipeline = make_pipeline(StandardScaler(), VAETransformer(**SMALL | {"epochs": 60, "lr": 5e-3}))
    search = GridSearchCV(pipeline, {"vaetransformer__sigma": [0.3, 3.0]}, cv=2).fit(rows(200))
    assert search.best_params_ == {"vaetransformer__sigma": 0.3}
    assert search.transform(rows(10)).shape == (10, 2)
    assert list(search.best_estimator_[-1].get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]


def test_pictures_through_convolutions():
    X = np.random.default_rng(0).random((40, 8 * 6))
    model = VAETransformer(3, model="conv-vae", image_shape=(8, 6, 1), likelihood="bernoulli", **SMALL)
    codes = make_pipeline(MinMaxScaler(), model).fit_transform(X)
    assert codes.shape == (40, 3)
    assert model.model_.image_shape == (8, 6, 1)


def test_pickle_scores_the_same(fitted):
    X = rows(5)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"likelihood": "bernoulli"}, DataError, "MinMaxScaler"),
        ({"image_shape": (2, 2, 1)}, ConfigError, "does not hold the 5 features"),
        ({"model": "ae"}, ConfigError, "use 'vae' or 'conv-vae'"),
        ({"latent_dim": 0}, ConfigError, "latent_dim=0"),
    ],
)
def test_what_cannot_be_fitted(options, error, words):
    with pytest.raises(error, match=words):
        VAETransformer(**SMALL | options).fit(rows(20))
