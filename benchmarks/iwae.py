"""A row of a paper's table: VAE and IWAE (k = 5) with the network of Burda et al. 2015 on dynamically binarised MNIST.

    python benchmarks/iwae.py --work DIR [--stages 5] [--threads 1]

784-200-200-50, tanh, mirrored, Glorot's weights, output biases at the logits of the mean image; Adam with eps = 1e-4,
batches of 20; stage i = 0 … 7 takes 3^i epochs at a learning rate of 0.001 · 10^(−i/7). The paper trains all 8 stages
(3,280 epochs); --stages 5 stops after 121. Then −log p(x) of the 10,000 test images with 5,000 importance samples each.
Stopped at any time, the same command goes on after the last epoch (or thousand test images) that was finished.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

PAPER = {"vae": 86.76, "iwae": 85.54}  # Burda et al. 2015, table 1, one stochastic layer, all 8 stages
DRAWS = {"vae": 1, "iwae": 5}
BATCH, EPS, HIDDEN, LATENT = 20, 1e-4, 200, 50
STAGES = 8
NLL_SAMPLES, NLL_BLOCK = 5000, 1000
RESULTS = Path(__file__).parent / "results"


def stage_of(epoch: int) -> int:
    """The stage in which epoch 0, 1, … lies: 3^i epochs each."""
    stage = 0
    while epoch >= (3 ** (stage + 1) - 1) // 2:
        stage += 1
    return stage


def build(name: str, mean_image: Any) -> Any:
    """The paper's network."""
    import numpy as np

    from tinyvae.config import Adam
    from tinyvae.layers import Dense, Flatten, Reshape, Sequential
    from tinyvae.models import IWAE, VAE

    def dense(n_in: int, n_out: int, act: str = "identity") -> Dense:
        return Dense(n_in, n_out, act, init="glorot")

    encoder = Sequential(
        Flatten(), dense(784, HIDDEN, "tanh"), dense(HIDDEN, HIDDEN, "tanh"), dense(HIDDEN, 2 * LATENT)
    )
    decoder = Sequential(
        dense(LATENT, HIDDEN, "tanh"), dense(HIDDEN, HIDDEN, "tanh"), dense(HIDDEN, 784), Reshape(28, 28, 1)
    )
    if name == "vae":
        model: Any = VAE(encoder, decoder, LATENT, (28, 28, 1))
    else:
        model = IWAE(encoder, decoder, LATENT, (28, 28, 1), samples=DRAWS[name])
    model.players = (replace(model.players[0], optimizer=Adam(eps=EPS)),)
    p = np.clip(mean_image, 1e-3, 1 - 1e-3)
    model.device.put(np.log(p / (1 - p)).astype(model.dtype), model.table.view("decoder.dense3.bias"))
    return model


def set_rate(step: Any, rate: float) -> None:
    """The learning rate from the next step on: the clock's plan holds it."""
    from tinyvae.kernels.clock import BASE_LR, PLAN_HEAD

    clock = step.model.clock
    plan = clock.device.get(clock.plan)
    plan[PLAN_HEAD + BASE_LR] = rate
    clock.set_plan(plan)


def train(name: str, data: Any, epochs: int, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The trained model, and what its epochs took; goes on from the folder's checkpoint."""
    from tinyvae.config import TrainConfig
    from tinyvae.training import checkpoint
    from tinyvae.training.step import Feed, Step, evaluate_pass

    model = build(name, data.train_images.mean(axis=0).reshape(-1) / 255)
    feed, test = Feed(model, data.train_images, "dynamic"), Feed(model, data.test_images, "dynamic", evaluation=True)
    step = Step(model, feed, TrainConfig(epochs=epochs, batch_size=BATCH, binarize="dynamic"))
    path, log = folder / "checkpoint.safetensors", {"wall": 0.0, "cpu": 0.0, "epochs": 0, "test": {}}
    if path.exists():
        log = checkpoint.restore(path, model, step)
    while step.epoch < epochs:
        epoch, wall, cpu = step.epoch, time.perf_counter(), time.process_time()
        set_rate(step, 0.001 * 10 ** (-stage_of(epoch) / 7))
        feed.shuffle(model.seed, epoch)
        model.device.fill(model.sums["train"], 0)
        for _ in range(step.per_epoch):
            step.run()
        log["wall"] += time.perf_counter() - wall
        log["cpu"] += time.process_time() - cpu
        log["epochs"] = step.epoch
        figures = model.figures(model.device.get(model.sums["train"]))
        line = f"{name} epoch {step.epoch}/{epochs}, stage {stage_of(epoch)}: training loss {figures['loss']:.3f}"
        if stage_of(step.epoch) > stage_of(epoch) or step.epoch == epochs:
            log["test"][str(step.epoch)] = evaluate_pass(model, test)
            line += f", test loss {log['test'][str(step.epoch)]['loss']:.3f}"
        checkpoint.save(model, path, step, log)
        print(f"{line}, {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s", flush=True)
    return model, log


def judge(name: str, model: Any, data: Any, samples: int, folder: Path) -> tuple[dict[str, Any], Any]:
    """−log p(x) of the test images, a thousand at a time, and the active units; then −log p(x) image by image."""
    import numpy as np

    from tinyvae.measure.evaluate import active_units, binarized, importance_sampling

    images = binarized(model, data.test_images, "dynamic")
    path = folder / f"nll-{samples}.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for block in range(len(done), len(images) // NLL_BLOCK):
        start = time.perf_counter()
        found = importance_sampling(model, images[block * NLL_BLOCK : (block + 1) * NLL_BLOCK], samples, seed=block)
        done.append({key: getattr(found, key).tolist() for key in ("nll", "neg_elbo", "mc_error", "effective_samples")})
        path.write_text(json.dumps(done))
        mean, seconds = found.nll.mean(), time.perf_counter() - start
        print(f"{name}: block {block + 1} of test images, {mean:.3f} nats, {seconds:.0f} s", flush=True)
    columns = {key: np.concatenate([block[key] for block in done]) for key in done[0]}
    nll = columns["nll"]
    row = {
        "nll": float(nll.mean()),
        "nll_stderr": float(nll.std(ddof=1) / len(nll) ** 0.5),
        "nll_mc_error": float(np.sqrt(np.square(columns["mc_error"]).sum()) / len(nll)),
        "neg_elbo": float(columns["neg_elbo"].mean()),
        "effective_samples": float(columns["effective_samples"].mean()),
        "images": len(nll),
        "samples": samples,
        "active_units": int(active_units(model, images)),
    }
    return row, nll


def report(found: dict[str, Any]) -> str:
    """The markdown table."""
    epochs = found["epochs"]
    lines = [
        "# VAE and IWAE, k = 5, on dynamically binarised MNIST",
        "",
        f"The network and the recipe of Burda et al. 2015 (784-200-200-50), the first {found['stages']} of 8 stages: "
        f"{epochs} of 3,280 epochs.",
        "",
        f"| | −log p(x), {found['nll_samples']:,} samples | −ELBO | active units of {LATENT} | the paper, all 8 stages "
        "| one epoch | all 8 stages would take |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["models"].items():
        title = "VAE" if name == "vae" else "IWAE, k = 5"
        lines.append(
            f"| {title} | {row['nll']:.2f} ± {row['nll_stderr']:.2f} | {row['neg_elbo']:.2f} | {row['active_units']} "
            f"| {PAPER[name]:.2f} | {row['cpu_per_epoch']:.1f} s | {row['full_schedule_hours']:.1f} h |"
        )
    lines += [
        "",
        f"Nats per image, {found['models']['vae']['images']:,} test images, binarised once, the same for both; ± is "
        f"the standard error over images. Image by image, IWAE's −log p(x) is lower by {found['difference']:.2f} ± "
        f"{found['difference_stderr']:.2f}. Times are of one thread's CPU, {found['machine']}, beside other programs.",
        "",
        f"`{found['command']}`",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Both models, one after the other; writes results/iwae.json and results/iwae.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--stages", type=int, default=5, choices=range(1, STAGES + 1), help="of 8 (default 5)")
    parser.add_argument("--samples", type=int, default=NLL_SAMPLES, help="importance samples (default 5000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the arithmetic (default 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    options = parser.parse_args()
    from tinyvae.app.cli import set_threads

    set_threads(options.threads)
    from tinyvae import datasets
    from tinyvae.bench.host import cpu_name

    data, epochs = datasets.load("mnist"), (3**options.stages - 1) // 2
    found: dict[str, Any] = {
        "command": f"python benchmarks/iwae.py --work DIR --stages {options.stages} --threads {options.threads}",
        "machine": cpu_name(), "stages": options.stages, "epochs": epochs, "nll_samples": options.samples,
        "paper": PAPER, "models": {},
    }  # fmt: skip
    trained = {}
    for name in PAPER:
        folder = options.work / name
        folder.mkdir(parents=True, exist_ok=True)
        trained[name] = train(name, data, epochs, folder)
    each = {}
    for name, (model, log) in trained.items():
        row, each[name] = judge(name, model, data, options.samples, options.work / name)
        row |= {"wall_per_epoch": log["wall"] / epochs, "cpu_per_epoch": log["cpu"] / epochs, "test": log["test"]}
        row["full_schedule_hours"] = row["cpu_per_epoch"] * ((3**STAGES - 1) // 2) / 3600
        found["models"][name] = row
    apart = each["vae"] - each["iwae"]
    found["difference"] = float(apart.mean())
    found["difference_stderr"] = float(apart.std(ddof=1) / len(apart) ** 0.5)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "iwae.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.results / "iwae.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
