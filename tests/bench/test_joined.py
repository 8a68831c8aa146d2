"""The side-by-side benchmark: its anomalies, its tables, its bars. Nothing here trains a model or looks at a clock."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyvae.datasets import as_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scripts():
    """(joined_runs, joined, gan_seeds), which find each other in their own folder."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield [importlib.import_module(name) for name in ("joined_runs", "joined", "gan_seeds")]
    sys.path[:] = before


def numbered(n, seed=0):
    """n images (6, 4, 1) uint8 of one grey each, which is the image's number, and labels of three classes."""
    labels = np.random.Generator(np.random.Philox(seed)).integers(0, 3, n)
    return np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(6, 1).repeat(4, 2), labels


def test_spliced_images_are_of_two_classes(scripts):
    images, labels = numbered(200)
    found = scripts[0].spliced(images, labels)
    np.testing.assert_array_equal(found[:, :3], images[:, :3])
    lower = found[:, 3:].reshape(200, -1)
    assert (lower == lower[:, :1]).all()
    assert (labels[lower[:, 0]] != labels).all()
    np.testing.assert_array_equal(scripts[0].spliced(images, labels), found)


def test_aurocs_of_known_scores(scripts):
    """A score that sees the seam, and one that is told the brightness: it knows the other data, not the splices."""
    images, labels = numbered(200)
    data = as_dataset(images, labels, test_images=images, test_labels=labels)
    other = as_dataset(images, test_images=np.full((50, 6, 4, 1), 250, np.uint8))

    def scores(x):
        x = x.astype(float)
        return {"seam": np.abs(x[:, 3] - x[:, 2]).sum(axis=(1, 2)), "bright": x[:, 0, 0, 0]}

    found = scripts[0].aurocs(scores, data, other)
    assert found == {"spliced": {"seam": 1.0, "bright": 0.5}, "other": {"seam": 0.5, "bright": 1.0}}


def row(frechet, classes=10, **more):
    """Figures of a run, made up."""
    shares = [0.1] * classes + [0.0] * (10 - classes)
    figures = {"parameters": 1234, "frechet": frechet, "classes": classes, "shares": shares, "precision": 0.5}
    areas = {"spliced": {"error": 0.75}, "other": {"error": 0.5, "discriminator": 0.25}}
    return figures | {"coverage": 0.25, "train": {"d_real": 0.6, "d_fake": 0.3}, "seconds": 12.0} | areas | more


def found_of(runs):
    rows = {"conv-ae": row(30, rmse=0.1, frechet_again=3), "gan": row(7.5), runs.TRUE: row(1, accuracy=0.99)}
    made = {"command": "COMMAND", "machine": "MACHINE", "seed": 0, "epochs": 3, "threads": 1}
    return made | {"figures": {"mnist": rows}}


def test_table_has_a_dash_for_what_a_model_has_not(scripts):
    runs, joined, _ = scripts
    lines = joined.table(found_of(runs)).splitlines()
    assert lines[2] == (
        "| AE, `conv-ae` | 1,234 | 0.100 | 3.0 | 30.0 | 10 of 10 | 10.0 % | 100 % | 0.500 | 0.250 | error 0.750 "
        "| error 0.500, −logit 0.250 | 12 |"
    )
    assert lines[3].startswith("| GAN, `gan` | 1,234 | – | – | 7.5 | ")
    assert len({line.count("|") for line in lines if line}) == 1
    assert "right on 99.00 % of MNIST's test images" in joined.text(found_of(runs))


def test_readme_is_written_between_its_markers(scripts, tmp_path):
    runs, joined, _ = scripts
    page = tmp_path / "README.md"
    page.write_text(f"above\n{joined.BEGIN}\nold\n{joined.END}\nbelow\n", "utf-8")
    for _ in range(2):
        joined.put_in_readme(found_of(runs), page)
    words = page.read_text("utf-8")
    assert words.startswith(f"above\n{joined.BEGIN}\n| MNIST | rmse |")
    assert words.endswith(f"\n{joined.END}\nbelow\n")
    assert "old" not in words
    assert words.count("| GAN, `gan` |") == 1
    assert "](benchmarks/results/joined-mnist-walks.png)" in words
    ours = (ROOT / "README.md").read_text("utf-8")
    assert ours.count(joined.BEGIN) == ours.count(joined.END) == 1


def test_bars_of_the_seeds(scripts):
    runs, _, seeds = scripts
    figures = {
        "conv-vae": [row(20 + i) for i in range(10)],
        "gan": [row(9, 9), *(row(9) for _ in range(9))],
        "vae-gan": [row(10 + i) for i in range(10)],
    }
    asked = seeds.verdicts(figures)
    assert [sum(answers) for answers in asked.values()] == [9, 10, 10]  # the last: the VAE-GAN's classes, no bar
    assert seeds.passed(asked)
    words = seeds.text({"command": "C", "seeds": 10, "epochs": 3, runs.TRUE: row(4), "figures": figures})
    assert "| 0 | 20.0 | 9.0 | 9 of 10 | 0.0 % | 90 % | 0.60 | 0.30 | 10.0 | 10 of 10 |" in words
    assert "- GAN covers all classes: 9 of 10 seeds" in words
    figures["vae-gan"][:2] = [row(10, 9), row(11, 9)]
    assert seeds.passed(seeds.verdicts(figures))
    figures["vae-gan"][:2] = [row(20), row(21)]  # no better than the VAE of that seed
    assert not seeds.passed(seeds.verdicts(figures))
