"""The peers' models of several players: the same networks, losses and gradients as ours, and no product more.
Nothing here says how fast anything must be."""

import numpy as np
import pytest
from test_bench import assert_trains

from tinyvae import zoo
from tinyvae.bench import cases, job, measure, report
from tinyvae.bench.cases import Case
from tinyvae.kernels.check import WrongResult

MODELS = tuple(cases.PLAYER_MODELS.values())
ROWS = 3


def game(name, dtype="float64", variant="torch"):
    """PyTorch's side."""
    pytest.importorskip("torch")
    from peers.torch_players import Game

    return Game(name, dtype, job.Variant.of(variant))


def theirs(value):
    """A weight as PyTorch has it: channels before pixels, outputs before inputs."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.shape[0] == 3136:
        value = value.reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    elif value.shape[-1] == 3136:
        value = value.reshape(-1, 7, 7, 64).transpose(0, 3, 1, 2).reshape(value.shape)
    return value.T


def walked(name):
    """Our model, and its batch of random images after every player's way back; {player: its gradients, named}."""
    model = zoo.build(name, device="numpy", dtype="float64")
    batch, found = model.batch("train", ROWS), {}
    batch.x[:] = np.random.default_rng(1).random(batch.x.shape)
    model.clock.kl_weight[:] = 1
    model.loss(batch)
    for player in model.players:
        model.grad(player, batch)
        names = [n for n in model.table.names() if n.split(".")[0] in player.parts]
        found[player.name] = {n: model.table.grad(n).copy() for n in names}
    return model, batch, found


@pytest.mark.parametrize("name", MODELS)
def test_the_peer_plays_the_same_game(name):
    """From equal weights and noise: every player's loss, and every gradient."""
    peer = game(name)
    import torch

    model, batch, ours = walked(name)
    for player, grads in ours.items():
        for tensor, parameter in zip(grads, peer.parameters[player], strict=True):
            parameter.data.copy_(torch.tensor(theirs(model.table.view(tensor)).copy()))
    noise = [batch.twins["latent"].eps] if name == "vae-gan" else []
    noise = [torch.tensor(a) for a in (*noise, batch.twins["prior"].z)]
    x = torch.tensor(batch.x.transpose(0, 3, 1, 2).copy()).reshape(peer.shape)
    losses, found = peer.find(x, *noise)
    assert [model.loss_of(player, batch) for player in model.players] == pytest.approx([float(one) for one in losses])
    for player, grads in ours.items():
        for (tensor, grad), other in zip(grads.items(), found[player], strict=True):
            np.testing.assert_allclose(theirs(grad), other.numpy(), rtol=1e-7, atol=1e-10, err_msg=tensor)


@pytest.mark.parametrize("name", MODELS)
def test_the_peer_makes_no_product_that_nobody_wants(name):
    """PyTorch's own count of its products equals ours of a step."""
    peer = game(name, "float32")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    noise = torch.randn(peer.model.draws, ROWS, cases.LATENT)
    with FlopCounterMode(display=False) as counter:
        peer.find(torch.rand(ROWS, 784).reshape(peer.shape), *noise)
    assert counter.get_total_flops() == cases.step_flops(name, ROWS)


def test_a_peers_step_moves_every_player():
    """Each by its own Adam, from the gradients of the same point."""
    peer = game("aae", "float32")
    feed = batches(4)
    before = {name: [p.detach().clone() for p in group] for name, group in peer.parameters.items()}
    losses = peer.step(next(feed))
    assert len(losses) == 2
    for name, group in before.items():
        lr = peer.optimizers[name].param_groups[0]["lr"]
        for was, p in zip(group, peer.parameters[name], strict=True):
            moved = (p.detach() - was).abs().max()
            assert 0.9 * lr < moved < 1.1 * lr  # Adam's first step


@pytest.mark.parametrize("variant", ["torch-channels-last", pytest.param("torch-compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["gan", "vae-gan"])
def test_every_variant_of_the_peer_takes_the_same_steps(name, variant):
    """The losses of three steps, which the weights after two of them decide."""
    torch = pytest.importorskip("torch")

    found = []
    for one in (game(name), game(name, variant=variant)):
        torch.manual_seed(1)
        feed = batches(ROWS)
        found.append([[float(loss) for loss in one.step(next(feed))] for _ in range(3)])
    np.testing.assert_allclose(*found, rtol=1e-6)


def batches(rows):
    from peers.torch_players import batches as endless

    return endless(rows)


@pytest.mark.parametrize("name", MODELS)
def test_each_players_losses_are_judged(name):
    """A course for each player, and each of its bounds counts."""
    case = next(case for case in cases.players() if case.model == name)
    courses = cases.COURSES[name]
    good = np.array([[(c.low + c.high) / 2 * (1 if i < 10 else min(c.fall, 1) * 0.9) for c in courses]
                     for i in range(cases.CHECK_STEPS)])  # fmt: skip
    case.check({"losses": good}, np.float32)
    assert len(courses) == len(zoo.build(name, device="numpy").players)
    for player, course in enumerate(courses):
        wrong = good.copy()
        wrong[0, player] = course.high
        with pytest.raises(WrongResult, match=f"{case}: the first loss is"):
            case.check({"losses": wrong}, np.float32)
        wrong = good.copy()
        wrong[10:, player] = wrong[0, player]
        if np.isfinite(course.fall):
            with pytest.raises(WrongResult, match=f"{case}: the loss only fell"):
                case.check({"losses": wrong}, np.float32)


def test_rows_of_a_game_in_both_tables():
    """In the README one line for each, and below the terminal's rows the floor of its products."""
    times = {name: {"us": us, "spread": 0.1, "calls": 9} for name, us in (("numba", 5e4), ("torch", 7.5e4))}
    step = {
        "group": "players", "name": "GAN step", "use": "step", "dtype": "float32", "threads": 1, "bytes": 0,
        "flops": cases.step_flops("gan"), "times": times,
    }  # fmt: skip
    machine = {"cpu": "A CPU", "cores": 1, "system": "Linux", "vectors": "avx2", "versions": {"tinyvae": "0.1.0"}}
    results = {"machine": machine, "command": "tinyvae bench", "rates": {}, "rows": [step]}
    line = "| GAN, one training step, batch 128 | 1.50: 50.00 ms, best peer 75.00 ms (torch) |"
    assert line in report.table(results).splitlines()
    results["rates"] = {"float32": {"1": {"fma": 1e11, "copy": 2e10}}}
    floor = cases.step_flops("gan") / 1e11 * 1e3
    expected = f"GAN step: 50.00 ms; best peer torch 75.00 ms, ratio 1.50; floor of its products {floor:.2f} ms"
    assert expected in report.text(results).splitlines()


def test_codes_have_no_layout_of_images():
    """Of the peers in either layout a dense game takes part in one only; JAX in none."""
    workers = {name: name for name in measure.PEERS["players"]}
    found = {case.model: measure.peers_of(case, workers) for case in cases.players()}
    assert found["aae"] == ["torch", "torch-compiled"]
    assert found["gan"] == found["vae-gan"] == list(workers)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("model", ["aae", pytest.param("gan", marks=SLOW), pytest.param("vae-gan", marks=SLOW)])
@pytest.mark.parametrize("library", ["numba", "torch", pytest.param("torch-compiled", marks=SLOW)])
def test_every_players_step_trains(library, model):
    assert_trains(library, Case("players", "a step", "step", model=model))
