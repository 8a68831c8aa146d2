"""One training step and its clock: schedules, warm-up, corrections, clipping, optimisers, shuffling, determinism.
Every formula is computed anew here, from the documentation and not from the code."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyvae import kernels, zoo
from tinyvae.config import SGD, Adam, TrainConfig, make_optimizer
from tinyvae.device import open_device
from tinyvae.errors import ConfigError
from tinyvae.kernels.clock import (
    CLIP,
    CONSTANT,
    CORRECTION1,
    CORRECTION2,
    COSINE,
    COUNTERS,
    CURSOR,
    EPOCH,
    KL_BETA,
    KL_CAPACITY,
    KL_FREE,
    LR,
    NORM,
    PLAN,
    PLAN_HEAD,
    RATES,
    ROW,
    SEED,
    STEP,
    STEPWISE,
    Clock,
)
from tinyvae.kernels.op import FLOATS
from tinyvae.training.step import Feed, Step, evaluate_pass, make_plan

SHAPE = (4, 3, 1)


def build(device="numpy", dtype="float64", name="vae", seed=0, **options):
    return zoo.build(name, SHAPE, 2, (5,), device=device, dtype=dtype, seed=seed, **options)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def ticks(device, plan, latent=2, steps=1, start=0, seed=7):
    """Counters and rates after each of `steps` ticks, as lists of NumPy arrays."""
    dev, players = open_device(device), (len(plan) - PLAN_HEAD) // PLAN
    clock = Clock(dev, players, latent, seed)
    clock.set_plan(np.asarray(plan, float))
    clock.set(step=start)
    tick = kernels.load(device).tick
    out = []
    for _ in range(steps):
        tick(clock.plan, clock.counters, clock.rates)
        out.append((clock.get(), dev.get(clock.rates)))
    return out


def rates_of(device, config, per_epoch, optimizer=None, steps=None):
    """(steps, 8 + latent) of a whole run with one player."""
    plan = make_plan(config, [(optimizer or Adam(), 1)], per_epoch)
    return np.array([rates for _, rates in ticks(device, plan, steps=steps or config.epochs * per_epoch)])


# ------------------------------------------------------------------------------------------------ the clock


def test_tick_counts_steps_epochs_and_cursor(device):
    plan = make_plan(TrainConfig(batch_size=32), [(Adam(), 1)], per_epoch=3)
    counted = np.array([counters for counters, _ in ticks(device, plan, steps=7)])
    assert counted[:, STEP].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert counted[:, EPOCH].tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert counted[:, CURSOR].tolist() == [0, 32, 64, 0, 32, 64, 0]
    assert (counted[:, ROW] == 0).all()
    assert (counted[:, SEED] == 7).all()


def test_the_constant_schedule(device):
    rates = rates_of(device, TrainConfig(epochs=4), 5, Adam(lr=0.02))
    assert (rates[:, LR] == 0.02).all()


@pytest.mark.parametrize(("epochs", "per_epoch"), [(3, 4), (10, 469), (1, 1), (1, 2), (7, 1)])
def test_the_step_schedule_divides_by_ten_after_each_third(device, epochs, per_epoch):
    rates = rates_of(device, TrainConfig(epochs=epochs, schedule="step"), per_epoch, Adam(lr=0.5))
    total = epochs * per_epoch
    want = [0.5 * 0.1 ** ((t - 1) // -(-total // 3)) for t in range(1, total + 1)]
    np.testing.assert_allclose(rates[:, LR], want, rtol=1e-14)


@pytest.mark.parametrize(("epochs", "per_epoch"), [(10, 30), (1, 20), (3, 1), (1, 1)])
def test_the_cosine_schedule_warms_up_and_falls_to_zero(device, epochs, per_epoch):
    rates = rates_of(device, TrainConfig(epochs=epochs, schedule="cosine"), per_epoch, Adam(lr=0.5))[:, LR]
    total = epochs * per_epoch
    warm = round(0.05 * total)
    np.testing.assert_allclose(rates[:warm], [0.5 * t / warm for t in range(1, warm + 1)], rtol=1e-14)
    done = np.arange(total - warm) / (total - warm)
    np.testing.assert_allclose(rates[warm:], 0.25 * (1 + np.cos(np.pi * done)), rtol=1e-12)
    assert rates.max() == 0.5
    assert (rates > 0).all()
    if total > 100:
        assert rates[-1] < 1e-3 * 0.5
        assert (np.diff(rates[warm:]) < 0).all()


def test_a_run_that_is_resumed_beyond_its_plan_stays_at_the_end(device):
    """No wave back up: after the last planned step the cosine schedule is 0."""
    plan = make_plan(TrainConfig(epochs=2, schedule="cosine"), [(Adam(), 1)], 10)
    beyond = [rates[LR] for _, rates in ticks(device, plan, steps=15, start=20)]
    assert beyond == pytest.approx([0] * 15, abs=1e-18)


def test_adams_corrections(device):
    rates = rates_of(device, TrainConfig(), 5, Adam(beta1=0.8, beta2=0.99), steps=9)
    t = np.arange(1, 10)
    np.testing.assert_allclose(rates[:, CORRECTION1], 1 / (1 - 0.8**t), rtol=1e-13)
    np.testing.assert_allclose(rates[:, CORRECTION2], 1 / (1 - 0.99**t), rtol=1e-13)
    plain = rates_of(device, TrainConfig(), 5, SGD(), steps=3)
    assert (plain[:, [CORRECTION1, CORRECTION2]] == 1).all()


def test_beta_warms_up_linearly(device):
    rates = rates_of(device, TrainConfig(beta=4.0, warmup=2, epochs=5), 3)[:, RATES:]
    want = 4.0 * np.minimum(1, np.arange(1, 16) / 6)
    np.testing.assert_allclose(rates, np.stack([want, want], axis=1), rtol=1e-15)
    assert (rates_of(device, TrainConfig(beta=4.0), 3)[:, RATES:] == 4).all()
    assert (rates_of(device, TrainConfig(beta=0.0, warmup=1), 3)[:, RATES:] == 0).all()


@given(
    start=st.integers(0, 10**6), per_epoch=st.integers(1, 1000), beta=st.floats(0, 10), warmup=st.integers(0, 2000),
    kinds=st.lists(st.sampled_from([CONSTANT, STEPWISE, COSINE]), min_size=1, max_size=3), lr=st.floats(1e-6, 1),
    lr_warmup=st.integers(0, 50), total=st.integers(1, 3000), period=st.integers(1, 100), gamma=st.floats(0.1, 1),
    every=st.integers(1, 5), latent=st.integers(0, 3), cycle=st.integers(0, 3000),
    capacity=st.sampled_from([0.0, 12.5]),
)  # fmt: skip
def test_tick_at_any_step(
    device, start, per_epoch, beta, warmup, kinds, lr, lr_warmup, total, period, gamma, every, latent, cycle, capacity
):
    """Several players, each with its own schedule, moving every n steps."""
    plan = [per_epoch, 16, beta, warmup, cycle, capacity, 0.25]
    for player, kind in enumerate(kinds):
        plan += [kind, lr * (player + 1), lr_warmup, total, period, gamma, 0.9, 0.999, every + player]
    ((counters, rates),) = ticks(device, plan, latent, start=start)
    step = start + 1
    assert counters[[STEP, EPOCH, CURSOR]].tolist() == [step, start // per_epoch, start % per_epoch * 16]
    for player, kind in enumerate(kinds):
        t = start // (every + player) + 1
        want = lr * (player + 1) * (min(1, t / lr_warmup) if lr_warmup else 1)
        if kind == STEPWISE:
            want *= gamma ** ((t - 1) // period)
        elif kind == COSINE and t > lr_warmup:
            want *= (1 + math.cos(math.pi * min(1, (t - 1 - lr_warmup) / max(1, total - lr_warmup)))) / 2
        block = rates[player * RATES : (player + 1) * RATES]
        assert block[LR] == pytest.approx(want, rel=1e-9, abs=1e-15)
        assert block[CORRECTION1] == pytest.approx(1 / (1 - 0.9**t), rel=1e-12)
        assert block[CORRECTION2] == pytest.approx(1 / (1 - 0.999**t), rel=1e-12)
    place = start % cycle + 1 if cycle else step
    ramp = min(1, place / warmup) if warmup else 1
    want = beta if capacity else beta * ramp
    assert rates[len(kinds) * RATES :] == pytest.approx(np.full(latent, want), rel=1e-14)
    for player in range(len(kinds)):
        block = rates[player * RATES : (player + 1) * RATES]
        assert block[[KL_BETA, KL_CAPACITY, KL_FREE]] == pytest.approx([want, capacity * ramp, 0.25], rel=1e-14)


def test_tick_leaves_norm_and_clip_alone(device):
    dev = open_device(device)
    clock = Clock(dev, 1, 2, 0)
    clock.set_plan(make_plan(TrainConfig(), [(Adam(), 1)], 5))
    dev.fill(clock.rates, 7)
    kernels.load(device).tick(clock.plan, clock.counters, clock.rates)
    assert dev.get(clock.rates)[[CLIP, NORM]].tolist() == [7, 7]


def test_a_fork_counts_for_itself_and_shares_the_rates(device):
    dev = open_device(device)
    clock = Clock(dev, 1, 2, 2**64 - 1)
    fork = clock.fork()
    clock.set(step=5, row=3)
    assert fork.get().tolist() == [0, 0, 0, 0, 2**64 - 1]
    dev.fill(clock.kl_weight, 0.25)
    assert dev.get(fork.kl_weight).tolist() == [0.25, 0.25]
    fork.set(cursor=9)
    assert clock.get().tolist() == [5, 0, 0, 3, 2**64 - 1]


# ------------------------------------------------------------------------------------------------ clip, optimisers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("max_norm", "factor"), [(0, 1), (1e9, 1), (13.0, 1), (6.5, 0.5), (1.3, 0.1)])
def test_clipping_factor(device, dtype, max_norm, factor):
    dev = open_device(device)
    grads = np.zeros(64, dtype)
    grads[[0, 7, 63]] = 3, 12, -4  # norm 13
    rates, work = dev.put(np.full(8, 5.0)), dev.empty(kernels.OPS["grad_norm"].work_size((64,)), dtype)
    kernels.load(device).grad_norm(dev.put(grads), max_norm, work, rates)
    got = dev.get(rates)
    assert got[NORM] == pytest.approx(13, rel=1e-7)
    assert got[CLIP] == pytest.approx(factor, rel=1e-7)
    assert got[[LR, CORRECTION1, CORRECTION2, 5, 6, 7]].tolist() == [5] * 6


def test_the_norm_of_no_gradient_is_zero(device):
    dev = open_device(device)
    rates, work = dev.put(np.zeros(8)), dev.empty(kernels.OPS["grad_norm"].work_size((5,)), np.float32)
    kernels.load(device).grad_norm(dev.put(np.zeros(5, np.float32)), 1.0, work, rates)
    assert dev.get(rates)[[NORM, CLIP]].tolist() == [0, 1]


def test_gradients_that_are_not_numbers_show_in_the_norm(device):
    """A NaN or an overflow is never clipped away."""
    dev = open_device(device)
    for bad in (np.nan, np.inf):
        grads = np.array([1, bad, 2], np.float32)
        rates, work = dev.put(np.zeros(8)), dev.empty(kernels.OPS["grad_norm"].work_size((3,)), np.float32)
        kernels.load(device).grad_norm(dev.put(grads), 1.0, work, rates)
        assert not math.isfinite(dev.get(rates)[NORM])


def test_large_float32_gradients_do_not_overflow_the_norm(device):
    dev = open_device(device)
    grads = np.full(100, 1e30, np.float32)
    rates, work = dev.put(np.zeros(8)), dev.empty(kernels.OPS["grad_norm"].work_size((100,)), np.float32)
    kernels.load(device).grad_norm(dev.put(grads), 1.0, work, rates)
    assert dev.get(rates)[NORM] == pytest.approx(1e31, rel=1e-6)


def run_optimizer(device, name, options, grads, lr=0.1, clip=1.0):
    """Parameters after one update for each row of grads, starting at 1; scalar loops beside it."""
    dev, k = open_device(device), kernels.load(device)
    values, m, v = (dev.put(np.full(grads.shape[1], start)) for start in (1.0, 0.0, 0.0))
    for t, g in enumerate(grads, 1):
        rates = np.zeros(8)
        rates[[LR, CLIP]] = lr, clip
        if name == "adam":
            rates[CORRECTION1], rates[CORRECTION2] = 1 / (1 - options[0] ** t), 1 / (1 - options[1] ** t)
            k.adam(dev.put(g), dev.put(rates), *options, values, m, v)
        else:
            k.sgd(dev.put(g), dev.put(rates), *options, values, m)
    return dev.get(values)


def test_adam_against_scalar_loops(device):
    grads = np.random.default_rng(0).standard_normal((5, 7))
    got = run_optimizer(device, "adam", (0.8, 0.95, 1e-3), grads, clip=0.5)
    for i in range(7):
        value, m, v = 1.0, 0.0, 0.0
        for t in range(1, 6):
            g = 0.5 * float(grads[t - 1, i])
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            value -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-3)
        assert got[i] == pytest.approx(value, rel=1e-12)


def test_adams_first_step_is_the_learning_rate(device):
    """Whatever the gradient's size: its sign times lr."""
    grads = np.array([[1e-3, -1e-3, 5.0, -1e4, 0.0]])
    got = run_optimizer(device, "adam", (0.9, 0.999, 1e-12), grads)
    np.testing.assert_allclose(got, [0.9, 1.1, 0.9, 1.1, 1.0], rtol=1e-7)


def test_gradient_descent_with_momentum(device):
    grads = np.array([[1.0], [0.0], [0.0], [-2.0]])
    got = run_optimizer(device, "sgd", (0.5,), grads)
    velocity = [1.0, 0.5, 0.25, -1.875]
    assert got[0] == pytest.approx(1 - 0.1 * sum(velocity))
    assert run_optimizer(device, "sgd", (0.0,), grads)[0] == pytest.approx(1.1)
    assert run_optimizer(device, "sgd", (0.0,), grads, clip=0.25)[0] == pytest.approx(1.025)


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_moments_that_fade_away_become_0_and_never_subnormal(device, name, dtype):
    """2,000 steps without a gradient, as of a pixel that is always black."""
    dev, run, rng = open_device(device), getattr(kernels.load(device), name), np.random.default_rng(0)
    exponents = np.linspace(-37, 2, 131)  # v fades slowly, so it starts close to the limit too
    m = dev.put((rng.choice([-1, 1], 131) * 10 ** rng.permutation(exponents)).astype(dtype))
    v = dev.put((10**exponents).astype(dtype))
    grads, values, rates = dev.put(np.zeros(131, dtype)), dev.put(np.ones(131, dtype)), np.ones(8)
    rates[LR] = 1e-3
    rates, smallest = dev.put(rates), np.finfo(np.float32).tiny
    for step in range(2000):
        run(grads, rates, *((0.9, 0.999, 1e-8, values, m, v) if name == "adam" else (0.9, values, m)))
        if step % 100 == 0 or step == 1999:
            for moment in (dev.get(m), dev.get(v)):
                assert ((moment == 0) | (abs(moment) >= smallest)).all()
    assert not dev.get(m).any()
    if name == "adam":
        np.testing.assert_array_equal(dev.get(v) == 0, 10**exponents * 0.999**2000 < 1e-36)
    run(
        dev.put(np.full(131, np.nan, dtype)),
        rates,
        *((0.9, 0.999, 1e-8, values, m, v) if name == "adam" else (0.9, values, m)),
    )
    assert np.isnan(dev.get(m)).all()


def test_a_clipped_step_has_the_norm_that_was_asked(device):
    """Plain gradient descent without momentum moves by lr · clip at most."""
    model = build(device)
    before = model.device.get(model.table.values)
    config = TrainConfig(batch_size=4, optimizer="sgd", lr=0.1, clip=0.01)
    Step(model, Feed(model, pictures(4)), config).run()
    moved = model.device.get(model.table.values) - before
    assert np.linalg.norm(moved) == pytest.approx(0.1 * 0.01, rel=1e-9)
    rates = model.device.get(model.clock.rates)
    assert rates[NORM] > 1
    assert rates[CLIP] == pytest.approx(0.01 / rates[NORM])


def test_what_a_run_overrides_and_what_it_leaves():
    brought = Adam(lr=0.01, beta1=0.5, beta2=0.9)
    assert make_optimizer(brought, None, None) == brought
    assert make_optimizer(brought, "adam", None) == brought
    assert make_optimizer(brought, None, 0.1) == Adam(0.1, 0.5, 0.9)
    assert make_optimizer(brought, "sgd", None) == SGD(0.01)
    assert make_optimizer(SGD(0.01, 0.3), None, 0.1) == SGD(0.1, 0.3)
    assert make_optimizer(SGD(), "adam", 0.2) == Adam(0.2)
    with pytest.raises(ConfigError, match="optimizer='lion' is not known; use one of 'adam', 'sgd'"):
        make_optimizer(brought, "lion", None)


# ------------------------------------------------------------------------------------------------ shuffling


def order_of(count, seed, epoch, model=None):
    model = model or build()
    feed = Feed(model, np.zeros((count, *SHAPE), np.uint8))
    feed.shuffle(seed, epoch)
    return model.device.get(feed.order)


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**4))
def test_a_shuffle_is_a_permutation(count, seed, epoch):
    assert sorted(order_of(count, seed, epoch)) == list(range(count))


def test_shuffles_differ_by_epoch_and_seed_and_repeat():
    orders = {(seed, epoch): tuple(order_of(100, seed, epoch)) for seed in (0, 1, 2**63) for epoch in range(4)}
    assert len(set(orders.values())) == len(orders)
    assert tuple(order_of(100, 1, 3)) == orders[1, 3]


def test_shuffles_leave_no_place_preferred():
    """Over 500 epochs the mean place of each of 20 images is the middle, and each image is first now and then."""
    model = build()
    orders = np.array([order_of(20, 5, epoch, model) for epoch in range(500)])
    places = np.argsort(orders, axis=1)
    error = 4 * math.sqrt((20**2 - 1) / 12 / 500)
    assert np.abs(places.mean(axis=0) - 9.5).max() < error
    first = np.bincount(orders[:, 0], minlength=20)
    assert ((first - 25) ** 2 / 25).sum() < 45  # χ² with 19 degrees of freedom: 0.1 %


def test_a_feed_starts_in_the_order_of_the_images(device):
    model = build(device)
    assert model.device.get(Feed(model, pictures(5)).order).tolist() == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------ the whole step


def train(device, name, steps, **options):
    """Parameters, gradients and metrics, as bytes, after some steps."""
    config = TrainConfig(batch_size=4, **options)
    model = build(device, "float32", name, seed=options.pop("seed", 0))
    feed = Feed(model, pictures(10), config.binarize)
    step, rows = Step(model, feed, config), []
    for _ in range(steps):
        if step.done % step.per_epoch == 0:
            feed.shuffle(model.seed, step.epoch)
        rows.append(model.device.get(step.run().metrics).tobytes())
    get = model.device.get
    return [get(model.table.values).tobytes(), get(model.table.grads).tobytes(), rows]


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
@pytest.mark.parametrize(
    "options", [{}, {"binarize": "dynamic", "clip": 1.0}, {"optimizer": "sgd", "warmup": 2}], ids=str
)
def test_two_runs_have_the_same_bits(device, name, options):
    assert train(device, name, 9, **options) == train(device, name, 9, **options)


def test_two_seeds_have_not(device):
    values = []
    for seed in (0, 1):
        model = build(device, seed=seed)
        Step(model, Feed(model, pictures(4)), TrainConfig(batch_size=4)).run()
        values.append(model.device.get(model.table.values).tobytes())
    assert values[0] != values[1]


def test_a_step_can_be_taken_up_again(device):
    """Parameters, moments and counters copied into a fresh model: the next steps have the same bits."""
    config = TrainConfig(batch_size=4, schedule="cosine", warmup=1, clip=2.0, binarize="dynamic")

    def fresh(seed):
        model = build(device, "float32", seed=seed)
        return model, Step(model, Feed(model, pictures(10), "dynamic"), config)

    model, step = fresh(3)
    for _ in range(5):
        step.run()
    other, again = fresh(4)
    put, get = other.device.put, model.device.get
    for a, b in (
        (model.table.values, other.table.values), (step.optimizers[0].m, again.optimizers[0].m),
        (step.optimizers[0].v, again.optimizers[0].v), (model.clock.counters, other.clock.counters),
    ):  # fmt: skip
        put(get(a), b)
    again.resume()
    assert again.done == 5
    assert again.epoch == step.epoch == 1
    for _ in range(5):
        one, two = step.run(), again.run()
        assert one.rows == two.rows
        assert get(one.metrics).tobytes() == get(two.metrics).tobytes()
    assert get(model.table.values).tobytes() == get(other.table.values).tobytes()


def test_sums_count_every_image(device):
    model = build(device)
    step = Step(model, Feed(model, pictures(10)), TrainConfig(batch_size=4))
    for _ in range(6):
        step.run()
    assert model.device.get(model.sums["train"])[3] == 20
    evaluate_pass(model, Feed(model, pictures(7)), 3)
    assert model.device.get(model.sums["evaluate"])[3] == 7
    assert model.device.get(model.sums["train"])[3] == 20


@pytest.mark.parametrize("n", [1, 2, 3])
def test_batches_are_bound_once(device, n):
    """A run owns the batches of two sizes at most, however long it is."""
    model = build(device)
    step = Step(model, Feed(model, pictures(4 * n + 1)), TrainConfig(batch_size=4))
    seen = {id(step.run()) for _ in range(3 * step.per_epoch)}
    assert len(seen) == 2
    assert len(step.recorded) == 2


BAD_CONFIGS = {
    "epochs": 0, "batch_size": 0, "lr": -1.0, "optimizer": "lion", "schedule": "linear", "clip": -1.0, "beta": -0.1,
    "warmup": -1, "binarize": "always", "validation": -1, "early_stop": 3, "save_every": 0,
}  # fmt: skip


@pytest.mark.parametrize("option", BAD_CONFIGS)
def test_train_config_names_what_cannot_work(option):
    with pytest.raises(ConfigError, match=f"^{option}={BAD_CONFIGS[option]!r}"):
        TrainConfig(**{option: BAD_CONFIGS[option]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(lr=0), "lr=0 must be a number above 0"),
        (lambda: Adam(lr=math.nan), "lr=nan must be a number above 0"),
        (lambda: Adam(beta1=1.0), "beta1=1.0 must be below 1"),
        (lambda: Adam(beta2=-0.1), "beta2=-0.1 must be a number of at least 0"),
        (lambda: Adam(eps=math.inf), "eps=inf must be a number of at least 0"),
        (lambda: SGD(momentum=1), "momentum=1 must be below 1"),
    ],
)
def test_optimizers_name_what_cannot_work(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_counters_have_five_words():
    assert {STEP, EPOCH, CURSOR, ROW, SEED} == set(range(COUNTERS))
