"""The command line: options in, calls out, errors as one line. It holds no logic.
Nothing heavy is imported before a command is known, so that --help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from .. import __version__
from ..config import MODEL_CONFIGS, ModelConfig, Options, TrainConfig
from ..errors import TinyvaeError


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def integer(text: str) -> int:
    """An option's integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """An option's number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def integers(text: str) -> tuple[int, ...]:
    """Integers separated by commas."""
    return tuple(integer(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(text.split(","))


def size(text: str) -> tuple[int, int]:
    """One number or two: H or H,W."""
    parts = integers(text)
    if len(parts) > 2 or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 64 for 64×64, or 48,64 for height and width")
    return parts[0], parts[-1]


def build_parser() -> Parser:
    """All commands and their options."""
    parser = Parser(prog="tinyvae", description="Variational autoencoders for images, from scratch.")
    parser.add_argument("--version", action="version", version=f"tinyvae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    add_train(commands)
    for name, text, add in (
        ("evaluate", "figures of a run, as JSON on stdout", add_evaluate),
        ("sample", "picture of new images", add_sample),
        ("reconstruct", "picture of test images beside their reconstructions", add_picture),
        ("interpolate", "picture of straight walks between test images' codes", add_picture),
        ("latent", "pictures of the latent space: codes by label, and decoded over a plane", add_latent),
        (
            "doctor",
            "says in words what is wrong, with the latent space or with a game of two, and what to change",
            add_doctor,
        ),
        ("explore", "one HTML file to walk through the latent space in, with any browser, offline", add_explore),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("run", metavar="RUN", help="folder of a run, as tinyvae train made it")
        command.add_argument("--device", metavar="NAME", help="numba, numpy or cuda (default: as trained)")
        add(command)
    add_anomaly(commands)
    check = commands.add_parser("gradcheck", help="check every op, layer and model against numerical gradients")
    check.add_argument("--device", default="numpy", help="numpy (default), numba or cuda")
    check.add_argument("--seed", type=integer, default=0, help="seed of the random inputs and cotangents (default 0)")
    add_bench(commands)
    add_explain(commands)
    learn = commands.add_parser("learn", help="the tutorials' exercises: list them, set one up, have it graded")
    learn.add_argument("chapter", nargs="?", metavar="CHAPTER", help="number of a chapter; all are listed without")
    learn.add_argument("--check", action="store_true", help="grade the chapter's working file")
    learn.add_argument("--hint", metavar="NAME", help="the next of three hints for an exercise, then its solution")
    learn.add_argument("--dir", default="learn", metavar="DIR", help="where the working files are (default learn)")
    commands.add_parser("info", help="versions, devices, threads, data found")
    return parser


def add_train(commands: Any) -> None:
    """The options of `train`; one that is not given is left out, so that a resumed run keeps its own."""
    text = "train a model; with no options the dense VAE on MNIST, 10 epochs"
    train = commands.add_parser(
        "train", help=text, description=text[0].upper() + text[1:] + ".", argument_default=argparse.SUPPRESS
    )
    option = train.add_argument
    option("--data", metavar="NAME|PATH", help="mnist, fashion-mnist, sprites, or a file or folder (default mnist)")
    option("--image-size", type=size, metavar="H[,W]", help="resize a folder of pictures")
    add_options(train, ModelConfig, *MODEL_CONFIGS, TrainConfig)
    option("--device", metavar="NAME", help="numba, compiled on first use, numpy, or cuda, a GPU (default numba)")
    option("--precision", metavar="NAME", help="fp32 or, on cuda, tf32: products on tensor cores (default fp32)")
    option("--threads", type=integer, metavar="N", help="threads of the arithmetic (default: all cores)")
    option("--out", metavar="DIR", help="folder of the run (default runs/MODEL-DATA, numbered where taken)")
    option("--resume", action="store_true", help="go on with the run in --out, bit for bit")


# type of a field: parser of its value, and what stands for that in --help
TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (integer, "N"),
    "float": (number, "X"),
    "str": (str, "NAME"),
    "tuple[int, ...]": (integers, "N[,N…]"),
}


def add_options(command: argparse.ArgumentParser, *configs: type[Options]) -> None:
    """An option of the command line for each field of dataclasses of options, once where several have it."""
    for f in {f.name: f for config in configs for f in fields(config)}.values():
        about, kind = f.metadata, str(f.type).removesuffix(" | None")
        spelling = about["flag"] or f"--{f.name.replace('_', '-')}"
        if about["of_data"]:
            continue
        if kind == "bool":
            action = "store_true" if f.default is False else argparse.BooleanOptionalAction
            command.add_argument(spelling, dest=f.name, action=action, help=about["help"])
        else:
            parse, metavar = TYPES[kind]
            command.add_argument(
                spelling, dest=f.name, type=parse, metavar=about["metavar"] or metavar, help=about["help"]
            )


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    command.add_argument(
        "--samples", type=integer, default=100, metavar="K", help="importance samples per image (default 100)"
    )
    command.add_argument(
        "--images", type=integer, default=1000, metavar="N", help="test images for the nll (default 1000)"
    )


def add_sample(command: argparse.ArgumentParser) -> None:
    """The options of `sample`."""
    command.add_argument("--count", type=integer, default=64, metavar="N", help="how many images (default 64)")
    command.add_argument("--seed", type=integer, default=None, metavar="S", help="seed (default: a fresh one)")
    add_picture(command)


def add_picture(command: argparse.ArgumentParser) -> None:
    """Where a picture goes."""
    command.add_argument("--out", default=None, metavar="FILE", help="PNG file (default: in the run's folder)")


def add_latent(command: argparse.ArgumentParser) -> None:
    """The options of `latent`."""
    command.add_argument("--out", default=None, metavar="DIR", help="folder of the pictures (default: the run's)")


def add_doctor(command: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    command.add_argument("--json", action="store_true", help="all figures too, as JSON")


def add_explore(command: argparse.ArgumentParser) -> None:
    """The options of `explore`."""
    command.add_argument("--out", metavar="FILE", help="HTML file (default: explorer.html in the run's folder)")
    command.add_argument(
        "--count", type=integer, metavar="N", help="test images to show (default 1000, fewer of large ones)"
    )


def add_explain(commands: Any) -> None:
    """The options of `explain`."""
    text = "what a VAE's loss means, however it is written: effective beta, implied sigma, nats and bits per pixel"
    command = commands.add_parser("explain", help=text, description=text[0].upper() + text[1:] + ".")
    option = command.add_argument
    option("--recon", default="bce", metavar="NAME", help="bce, mse or rmse: the reconstruction error (default bce)")
    option("--image-size", type=size, default=(28, 28), metavar="H[,W]", help="height and width (default 28)")
    option("--channels", type=integer, default=1, metavar="C", help="channels of an image (default 1)")
    option("--pixels", default="sum", metavar="HOW", help="sum or mean of the error over pixels (default sum)")
    option("--batch", default="mean", metavar="HOW", help="sum or mean of the error over the batch (default mean)")
    option("--recon-weight", type=number, default=1.0, metavar="W", help="weight of the error (default 1)")
    option("--latents", default="sum", metavar="HOW", help="sum or mean of the KL over latents (default sum)")
    option("--kl-batch", default="mean", metavar="HOW", help="sum or mean of the KL over the batch (default mean)")
    option("--kl-weight", type=number, default=1.0, metavar="W", help="weight of the KL (default 1)")
    option("--latent-dim", type=integer, metavar="N", help="latent variables, where the KL is averaged over them")
    option("--batch-size", type=integer, metavar="N", help="images of a batch, where a term is summed over it")
    option("--recon-value", type=number, metavar="X", help="the error as it is logged, without its weight")
    option("--kl-value", type=number, metavar="X", help="the KL as it is logged, without its weight")
    option("--rmse", type=number, metavar="X", help="the RMSE that is reached, for --recon rmse")
    option("--pixel-range", type=number, default=1.0, metavar="R", help="2 for pixels in [-1, 1], 255 for bytes")


def add_anomaly(commands: Any) -> None:
    """The options of `anomaly`."""
    text = "which pictures do not belong: train on normal ones, score the others"
    command = commands.add_parser("anomaly", help=text, description=text[0].upper() + text[1:] + ".")
    option = command.add_argument
    option("run", nargs="?", metavar="RUN", help="with --rank: a run trained on good pictures, instead of --data")
    option("--data", metavar="NAME|PATH", help="labelled data (default mnist), or a folder of good pictures")
    option("--leave-out", metavar="CLASS", help="train on all classes but this one, which is the anomaly")
    option("--only", metavar="CLASS", help="train on this class; all others are anomalies")
    option("--rank", metavar="FOLDER", help="train on the good pictures of --data and rank the pictures in FOLDER")
    option("--score", default="joint", metavar="NAME", help="what decides (default joint); all are shown")
    option("--false-alarms", type=number, default=0.01, metavar="RATE", help="stated rate of them (default 0.01)")
    option("--show", type=integer, default=16, metavar="N", help="pictures on the sheet (default 16)")
    option("--image-size", type=size, metavar="H[,W]", help="resize a folder of pictures")
    option("--model", default="vae", metavar="NAME", help="as for train (default vae)")
    option("--latent-dim", type=integer, default=20, metavar="N", help="latent variables (default 20)")
    option("--hidden", type=integers, default=(), metavar="N[,N…]", help="as for train")
    option("--likelihood", metavar="NAME", help="as for train (default gaussian)")
    option("--sigma", type=number, metavar="S", help="of the gaussian likelihood (default 0.2)")
    option("--epochs", type=integer, metavar="N", help="default: until 150,000 images were seen, at least 8")
    option("--device", metavar="NAME", help="numba (default), numpy or cuda")
    option("--threads", type=integer, metavar="N", help="threads of the arithmetic (default: all cores)")
    option("--seed", type=integer, default=0, metavar="S", help="seed of weights and noise (default 0)")
    option("--out", metavar="DIR", help="where table and pictures go (default runs/anomaly-…)")


def add_bench(commands: Any) -> None:
    """The options of `bench`."""
    text = "measure products, convolutions, steps, ops and start-up beside NumPy, PyTorch and JAX"
    bench = commands.add_parser("bench", help=text, description=text[0].upper() + text[1:] + ".")
    option = bench.add_argument
    option(
        "--only", type=names, default=(), metavar="G[,G…]",
        help="products, convs, steps, players, ops, startup; on cuda memory, products, convs, steps, training "
        "(default all)",
    )  # fmt: skip
    option("--threads", type=integers, default=(), metavar="N[,N…]", help="thread counts (default 1 and all cores)")
    option("--dtype", default="float32", metavar="NAME", help="float32 or float64 (default float32)")
    option("--rounds", type=integer, default=5, metavar="N", help="turns of each library per case (default 5)")
    option("--verify-only", action="store_true", help="check every result against the reference and time nothing")
    option("--device", default=None, metavar="NAME", help="numba (default) or cuda; with --verify-only numpy too")
    option("--cuda-code", action="store_true", help="compile every CUDA kernel and look at the code; needs no GPU")
    option("--peers", metavar="DIR", help="folder benchmarks/ of a clone, which has the peers' programs")
    option("--from", dest="earlier", metavar="FILE", help="figures of an earlier run; only --only is measured again")
    option("--json", metavar="FILE", help="write all figures to this file")
    option("--readme", nargs="?", const="README.md", metavar="FILE", help="rewrite the table in this README")
    option("--roofline", metavar="FILE", help="draw the roofline picture, a PNG")


# ---------------------------------------------------------------------------------------------- commands


def say(text: str) -> None:
    """A line for people, on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def train(options: dict[str, Any]) -> None:
    """tinyvae train"""
    from pathlib import Path

    out, resume = options.pop("out", None), options.pop("resume", False)
    set_threads(options.pop("threads", None))
    say(f"tinyvae {__version__}")
    from .run import train_run

    folder = train_run(options, Path(out) if out is not None else None, resume, say)
    print(folder)


def set_threads(threads: int | None) -> None:
    """Must come before NumPy is imported: its BLAS reads these variables once."""
    if threads is None:
        return
    from ..config import THREAD_VARIABLES, require_int

    require_int("threads", threads, 1)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


def evaluate(options: dict[str, Any]) -> None:
    """tinyvae evaluate"""
    import json
    from pathlib import Path

    from ..measure.evaluate import full_report
    from .run import open_run

    run = open_run(Path(options["run"]), options["device"])
    report = full_report(run.model, run.data, options["samples"], options["images"], run.config.train.binarize, say)
    print(json.dumps(report, indent=2))


def picture(command: str) -> Callable[[dict[str, Any]], None]:
    """tinyvae sample, reconstruct, interpolate, latent"""

    def call(options: dict[str, Any]) -> None:
        from pathlib import Path

        from .run import draw

        count, seed = options.get("count"), options.get("seed")
        for path in draw(command, Path(options["run"]), options["out"], count, seed, options["device"]):
            print(path)

    return call


def doctor(options: dict[str, Any]) -> None:
    """tinyvae doctor"""
    import json
    from pathlib import Path

    from ..measure.doctor.latent import examine
    from .run import open_run

    run = open_run(Path(options["run"]), options["device"])
    diagnosis = examine(run.model, run.data, run.config.train, rows=run.rows)
    print(json.dumps(diagnosis.to_json(), indent=2) if options["json"] else diagnosis)


def explore(options: dict[str, Any]) -> None:
    """tinyvae explore"""
    from pathlib import Path

    from ..pictures.explore import write_page
    from .run import open_run

    run = open_run(Path(options["run"]))
    path = run.path / "explorer.html" if options["out"] is None else Path(options["out"])
    say(write_page(run, path, options["count"]))
    print(path)


def anomaly(options: dict[str, Any]) -> None:
    """tinyvae anomaly"""
    set_threads(options.pop("threads"))
    from .anomaly import run

    print(run(options, say))


def gradcheck(options: dict[str, Any]) -> None:
    """tinyvae gradcheck"""
    from ..check import main_table

    text, ok = main_table(options["device"], options["seed"], progress=lambda line: print(line, flush=True))
    print(text)
    if not ok:
        raise SystemExit(1)


def explain(options: dict[str, Any]) -> None:
    """tinyvae explain"""
    from ..measure.explain import explain_objective

    shape = (*options.pop("image_size"), options.pop("channels"))
    print(explain_objective(options.pop("recon"), shape, **options))


def bench(options: dict[str, Any]) -> None:
    """tinyvae bench"""
    if not (options["verify_only"] or options["cuda_code"] or options["device"] == "cuda"):
        set_threads(1)  # this process only judges results; what is timed has processes of its own
    from ..bench.main import run

    text, ok = run(options, say, ["tinyvae", *sys.argv[1:]])
    if text:
        print(text)
    if not ok:
        raise SystemExit(1)


def learn(options: dict[str, Any]) -> None:
    """tinyvae learn"""
    from pathlib import Path

    from .. import learn as lessons

    folder = Path(options["dir"])
    if options["chapter"] is None:
        print(lessons.overview(folder))
        return
    chapter = lessons.chapter_of(options["chapter"])
    if options["hint"] is not None:
        print(lessons.hint(chapter, options["hint"], folder))
    elif options["check"]:
        right = True
        for ok, line in lessons.check(chapter, folder):
            print(f"{'✓' if ok else '✗'} {line}", flush=True)
            right = right and ok
        if not right:
            raise SystemExit(1)
    else:
        print(lessons.set_up(chapter, folder))


def info(options: dict[str, Any]) -> None:
    """tinyvae info"""
    from .run import describe_machine

    print(describe_machine())


COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "sample": picture("sample"),
    "reconstruct": picture("reconstruct"),
    "interpolate": picture("interpolate"),
    "latent": picture("latent"),
    "doctor": doctor,
    "explore": explore,
    "anomaly": anomaly,
    "gradcheck": gradcheck,
    "bench": bench,
    "explain": explain,
    "learn": learn,
    "info": info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 2 for wrong use (one line on stderr), 1 for a failure, 128 + n after signal n."""
    parser = build_parser()
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    if command is None:
        parser.print_help()
        return 0
    try:
        COMMANDS[command](options)
        return 0
    except TinyvaeError as error:
        return fail(command, str(error), error.exit_status)
    except MemoryError as error:
        return fail(command, f"not enough memory ({error}); try a smaller --batch-size or smaller images", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `tinyvae evaluate RUN | head` is no error
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(command, f"{where}{error.strerror or error}; checkpoints already written are intact", 1)
    except KeyboardInterrupt:
        return fail(command, "stopped", 130)


def fail(command: str, message: str, status: int) -> int:
    """One line on stderr, and the exit status."""
    say(f"tinyvae {command}: error: " + " ".join(message.split()))
    return status


if __name__ == "__main__":
    sys.exit(main())
