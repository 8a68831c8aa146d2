"""What tinyvae says when it cannot go on: one sentence with the argument, the value and the fix.
It knows nothing of what failed; the command line prints the sentence and picks the exit status."""

from __future__ import annotations


class TinyvaeError(Exception):
    """Base of all errors that tinyvae raises on purpose. `exit_status` is what the command line returns."""

    exit_status = 1


class ConfigError(TinyvaeError, ValueError):
    """An option or argument has a value that cannot work (wrong use: exit status 2)."""

    exit_status = 2


class ShapeError(TinyvaeError, ValueError):
    """Layers or arrays that do not fit together, named with what was expected and what was given."""

    exit_status = 2
    path: tuple[str, ...] = ()  # the containers, outermost first, and the layer

    def within(self, name: str) -> ShapeError:
        """The same complaint as the container sees it: "decoder.dense2: Dense(4, 6): expected …"."""
        sentence = str(self).removeprefix(".".join(self.path) + ": ")
        error = ShapeError(f"{'.'.join((name, *self.path))}: {sentence}")
        error.path = (name, *self.path)
        return error


class DataError(TinyvaeError, ValueError):
    """A data file or array that is missing, damaged, or not what it claims to be."""


class KernelError(TinyvaeError, ValueError):
    """An op was called with arrays it cannot take, or a device has no such op."""


class DeviceError(TinyvaeError, RuntimeError):
    """The device asked for is not there; the sentence says what is missing."""


class CheckpointError(TinyvaeError, ValueError):
    """A checkpoint that is damaged, foreign, or of another model; whatever was loaded before is unharmed."""


class TrainingError(TinyvaeError, RuntimeError):
    """Training cannot go on (a loss that is not a number, a full disk); the last checkpoint is intact."""
