"""Training as a user meets it: the log, resuming, stopping, early stopping, validation, and runs that cannot go on."""

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tinyvae
from tinyvae import datasets, zoo
from tinyvae.errors import ConfigError, DataError, TrainingError
from tinyvae.training import checkpoint
from tinyvae.training.trainer import Interrupted, read_rows, split_validation


def images(n=90, seed=0):
    """Pictures of bright bars whose place varies: something that a model can learn."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 6, 5, 1), np.uint8)
    x[np.arange(n), :, rng.integers(0, 5, n)] = 200
    return x


def build(name="vae", seed=3, **options):
    return zoo.build(name, (6, 5, 1), latent_dim=2, hidden=(8,), seed=seed, **options)


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


OPTIONS = dict(epochs=4, batch_size=32, lr=0.01, warmup=2, clip=1.0, binarize="dynamic", schedule="cosine")


def test_rows_fall_and_hold_the_documented_figures(tmp_path):
    rows = tinyvae.train(build(), images(), epochs=30, batch_size=32, lr=0.01, out=tmp_path)
    assert rows == read_rows(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == list(range(1, 31))
    for row in rows:
        assert set(row) == {"epoch", "train", "test", "seconds"}
        for part in ("train", "test"):
            figures = row[part]
            assert set(figures) == {"loss", "neg_elbo", "recon", "kl"}
            assert figures["neg_elbo"] == pytest.approx(figures["recon"] + figures["kl"], rel=1e-12)
    assert rows[-1]["test"]["loss"] < 0.7 * rows[0]["test"]["loss"]


def test_training_again_goes_on_from_the_weights():
    model = build()
    first = tinyvae.train(model, images(), epochs=5, lr=0.01, batch_size=32)
    second = tinyvae.train(model, images(), epochs=5, lr=0.01, batch_size=32)
    assert len(second) == 5
    assert second[0]["epoch"] == 1
    assert second[-1]["train"]["loss"] < first[-1]["train"]["loss"]


def test_loss_weighs_the_kl_and_neg_elbo_does_not():
    row = tinyvae.train(build(), images(), epochs=1, beta=3.0)[0]["test"]
    assert row["loss"] == pytest.approx(row["recon"] + 3 * row["kl"], rel=1e-9)
    assert row["neg_elbo"] == pytest.approx(row["recon"] + row["kl"], rel=1e-12)


def test_autoencoder_logs_loss_and_rmse_where_gaussian():
    row = tinyvae.train(build("ae", likelihood="mse"), images(), epochs=1)[0]["test"]
    assert set(row) == {"loss", "recon", "rmse"}
    assert 0 < row["rmse"] < 1


def test_rmse_in_the_log_is_that_of_the_reconstructions():
    model, x = build("ae", likelihood="gaussian", sigma=0.3), images()
    data = datasets.as_dataset(x)
    row = tinyvae.train(model, data, epochs=2)[-1]["test"]
    error = model.reconstruct(data.test_images) - data.test_images / 255
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, cut):
    whole = build()
    expected = tinyvae.train(whole, images(), out=tmp_path / "whole", **OPTIONS)
    # a run that is cut at an epoch must have the schedule of the whole one, so it is stopped and not shortened
    with pytest.raises(Interrupted):
        tinyvae.train(StopAt(build(), cut * 3), images(), out=tmp_path / "cut", **OPTIONS)
    resumed = build()
    resumed.table.initialise(99)  # other weights: everything must come from the checkpoint
    rows = tinyvae.train(resumed, images(), out=tmp_path / "cut", resume=True, **OPTIONS)
    assert without_seconds(rows) == without_seconds(expected)
    assert without_seconds(read_rows(tmp_path / "cut" / "metrics.jsonl")) == without_seconds(expected)
    np.testing.assert_array_equal(resumed.table.values, whole.table.values)


@pytest.mark.parametrize("at", [1, 4, 5, 8])
def test_ctrl_c_in_the_middle_of_an_epoch_loses_nothing(tmp_path, at):
    whole = build()
    expected = tinyvae.train(whole, images(), **OPTIONS)
    with pytest.raises(Interrupted, match=r"saved; go on with: tinyvae train --resume --out") as caught:
        tinyvae.train(StopAt(build(), at), images(), out=tmp_path, **OPTIONS)
    assert caught.value.exit_status == 130
    resumed = build()
    rows = tinyvae.train(resumed, images(), out=tmp_path, resume=True, **OPTIONS)
    assert without_seconds(rows) == without_seconds(expected)
    np.testing.assert_array_equal(resumed.table.values, whole.table.values)


def StopAt(model, step):
    """The model, made to press ctrl-C while its given step runs."""
    inner, count = model.grad, [0]

    def grad(player, batch):
        count[0] += 1
        if count[0] == step:
            signal.raise_signal(signal.SIGINT)
        inner(player, batch)

    model.grad = grad
    return model


def test_second_ctrl_c_stops_at_once():
    model = build()

    def grad(player, batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    model.grad = grad
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tinyvae.train(model, images())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_log_line_cut_off_by_a_crash_is_made_again(tmp_path):
    whole = tinyvae.train(build(), images(), out=tmp_path / "a", epochs=3, save_every=2)
    log = tmp_path / "a" / "metrics.jsonl"
    model = build()
    checkpoint_at_2 = tmp_path / "b"
    tinyvae.train(model, images(), out=checkpoint_at_2, epochs=2)
    torn = (checkpoint_at_2 / "metrics.jsonl").read_text() + log.read_text().splitlines()[2][:40]
    (checkpoint_at_2 / "metrics.jsonl").write_text(torn)
    rows = tinyvae.train(build(), images(), out=checkpoint_at_2, epochs=3, resume=True)
    assert without_seconds(rows) == without_seconds(whole)


def test_validation_images_come_from_the_training_set_only():
    x = np.arange(50, dtype=np.uint8)[:, None, None, None]
    training, held = split_validation(x, 10, seed=5)
    assert len(training) == 40
    assert len(held) == 10
    assert sorted([*training.ravel(), *held.ravel()]) == list(range(50))
    assert held.ravel().tolist() != list(range(40, 50))
    again = split_validation(x, 10, seed=5)[1]
    np.testing.assert_array_equal(held, again)


def test_early_stopping_keeps_the_best_checkpoint(tmp_path):
    x = images(40)
    rows = tinyvae.train(build("ae"), x, epochs=200, batch_size=8, lr=0.1, validation=12, early_stop=3, out=tmp_path)
    assert len(rows) < 200
    losses = [row["validation"]["loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(rows) - 1 - best == 3
    model = checkpoint.load(tmp_path / "best.safetensors")
    _, held = split_validation(datasets.as_dataset(x).train_images, 12, model.seed)
    assert model.reconstruct(held).shape == held.shape
    from tinyvae.training.step import Feed, evaluate_pass

    assert evaluate_pass(model, Feed(model, held, evaluation=True))["loss"] == pytest.approx(losses[best], rel=1e-6)


def test_early_stopping_state_survives_a_resume(tmp_path):
    options = dict(epochs=60, batch_size=8, lr=0.1, validation=12, early_stop=3)
    expected = tinyvae.train(build("ae"), images(40), **options)
    stop = 3 * (len(expected) - 2) + 1
    with pytest.raises(Interrupted):
        tinyvae.train(StopAt(build("ae"), stop), images(40), out=tmp_path, **options)
    rows = tinyvae.train(build("ae"), images(40), out=tmp_path, resume=True, **options)
    assert without_seconds(rows) == without_seconds(expected)


@pytest.mark.parametrize("save_every", [1, 2])
@pytest.mark.parametrize("at", ["before", "between"])
def test_a_run_killed_while_it_saves_ends_with_the_best_model(tmp_path, monkeypatch, at, save_every):
    """Killed around each save of the best model: a resumed run ends as one that was never stopped."""
    options = dict(epochs=7, batch_size=8, lr=0.3, validation=12, save_every=save_every)
    rows = tinyvae.train(build("ae"), images(40), out=tmp_path / "whole", **options)
    losses = [row["validation"]["loss"] for row in rows]
    better = [epoch for epoch in range(1, 8) if losses[epoch - 1] < min(losses[: epoch - 1], default=np.inf)]
    assert better[-2:] == [4, 5]  # what is missed in the last of them no later epoch makes good
    inner, best = checkpoint.save, tmp_path / "whole" / "best.safetensors"
    for epoch in better[-2:]:
        out, done = tmp_path / str(epoch), []

        def save(model, path, step, extra, epoch=epoch, done=done):
            if step.done == epoch * step.per_epoch:
                if len(done) == ["before", "between"].index(at):
                    raise KeyboardInterrupt
                done.append(path.name)
            inner(model, path, step, extra)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", save)
            try:
                tinyvae.train(build("ae"), images(40), out=out, **options)
            except KeyboardInterrupt:
                patch.setattr(checkpoint, "save", inner)
                tinyvae.train(build("ae"), images(40), out=out, resume=True, **options)
        assert (out / "best.safetensors").read_bytes() == best.read_bytes()
        assert without_seconds(read_rows(out / "metrics.jsonl")) == without_seconds(rows)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(tmp_path):
    model = build(likelihood="gaussian", sigma=1e-3)
    with pytest.raises(TrainingError, match=r"loss of epoch \d+ is not a number; .*smaller lr"):
        tinyvae.train(model, images(), epochs=40, lr=1e4, out=tmp_path)
    if (tmp_path / "checkpoint.safetensors").exists():
        assert np.isfinite(checkpoint.load(tmp_path / "checkpoint.safetensors").table.values).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_check_finite_names_the_tensor():
    model = build()
    model.table.view("decoder.dense2.bias")[3] = np.nan
    with pytest.raises(TrainingError, match=r"step 1: .*dense.* not finite"):
        tinyvae.train(model, images(), epochs=1, check_finite=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(epochs=0), "epochs=0 must be an integer of at least 1"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(beta=-1.0), "beta=-1.0 must be a number of at least 0, the weight of the KL"),
        (dict(lr=0.0), "lr=0.0 must be a number above 0"),
        (dict(lr=float("nan")), "lr=nan"),
        (dict(schedule="exponential"), "schedule='exponential' is not known; use one of 'constant'"),
        (dict(optimizer="lion"), "optimizer='lion' is not known"),
        (dict(binarize="yes"), "binarize='yes' is not known"),
        (dict(validation=81), "validation=81 leaves no image of 81"),
        (dict(early_stop=2), "early_stop=2 needs validation images"),
    ],
)
def test_options_that_cannot_work(options, match):
    with pytest.raises(ConfigError, match=match):
        tinyvae.train(build(), images(), **options)


def test_images_that_do_not_fit_the_model():
    with pytest.raises(DataError, match=r"images are \(4, 4, 1\), the model takes \(6, 5, 1\)"):
        tinyvae.train(build(), np.zeros((20, 4, 4, 1), np.uint8))


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    tinyvae.train(build(), images(), epochs=1, out=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        tinyvae.train(build(), images(), epochs=1, out=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


KILLED = """
import sys
import numpy as np, tinyvae
from tinyvae import training
from tinyvae.training import checkpoint
inner = checkpoint.save
def save(model, path, step, extra):
    inner(model, path, step, extra)
    print(step.done, flush=True)  # acknowledged
checkpoint.save = save
x = np.random.default_rng(0).integers(0, 255, (90, 6, 5, 1)).astype(np.uint8)
model = tinyvae.zoo.build("vae", (6, 5, 1), latent_dim=2, hidden=(8,), seed=3)
training.train(model, x, epochs=100000, batch_size=32, out=sys.argv[1], resume=len(sys.argv) > 2)
"""


def test_kill_at_random_moments_loses_no_acknowledged_checkpoint(tmp_path):
    rng = np.random.default_rng()  # a different moment each time, on purpose
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    folder, acknowledged = tmp_path / "run", 0
    for turn in range(10):
        arguments = [sys.executable, str(script), str(folder)] + (["resume"] if turn else [])
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(int(rng.integers(1, 30))):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        model = checkpoint.load(folder / "checkpoint.safetensors")
        assert int(model.clock.get()[0]) >= acknowledged
        rows = read_rows(folder / "metrics.jsonl")
        assert len(rows) >= acknowledged // 3
        assert all(json.loads(json.dumps(r)) == r for r in rows)
