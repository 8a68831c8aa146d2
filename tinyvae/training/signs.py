"""Signs in the log alone that a game of two players fails; training warns of them at the end of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Mapping[str, Any]]

# Set on seeds 0 to 2 of benchmarks/gan_doctor.py, between what was made ill and what was not, and tried on others.
MOST_BEATEN = 0.02  # d_fake, below which the discriminator is too strong
SURE_SWING = 0.9  # from which training warns: a few epochs of a good run may come near the other figure
WATCHED = 4  # epochs that a sign lasts before training warns
LEAST_SWINGS = 6  # the fewest epochs that a swing is measured over


def geometric(rows: Rows, name: str) -> float:
    """The geometric mean of a figure over epochs: d_real and d_fake are geometric means themselves."""
    return float(np.exp(np.mean([np.log(max(row["train"][name], 1e-30)) for row in rows])))


def swing(rows: Rows) -> float | None:
    """Mean of |l_(t−1) − 2 l_t + l_(t+1)| / 2 over mean of l, l = −log d_fake on the test images after epoch t.

    Of a non-saturating GAN l is the generator's loss. Up and down by d every other epoch gives d, a straight line 0. It
    is of ten epochs at most, without the first two of a run; None where fewer than six are left.
    """
    level = [-np.log(np.clip(row["test"]["d_fake"], 1e-30, 1 - 1e-7)) for row in rows[2:][-10:]]
    if len(level) < LEAST_SWINGS:
        return None
    return float(np.abs(np.diff(level, 2)).mean() / 2 / np.mean(level))


def too_strong(game: Mapping[str, Any]) -> bool:
    """Whether the discriminator is right about nearly every image, so that the generator learns nothing from it."""
    return bool(game["top_fake"] < MOST_BEATEN and game["d_real"] > 0.5)


def warning(rows: Rows) -> str | None:
    """What to say at the end of an epoch: a sign that the rows alone show and that has stood for several epochs."""
    if len(rows) <= WATCHED or "d_fake" not in rows[-1]["train"]:
        return None
    last = rows[-WATCHED:]
    if too_strong({"d_real": geometric(last, "d_real"), "top_fake": max(row["train"]["d_fake"] for row in last)}):
        return f"the discriminator is too strong: d_fake below {MOST_BEATEN:g} for {WATCHED} epochs"
    found = swing(rows)
    if found is not None and found > SURE_SWING:
        return f"the losses swing: by {100 * found:.0f} % of their level from epoch to epoch"
    return None
