"""Where the parts of a CUDA toolkit stand on this machine, and a folder of links in which Numba finds them.
It knows files and no GPU; nothing of Numba but where it looks.

    python -m tinyvae.device.toolkit FOLDER      makes the links and prints, for a shell, what to set

NVIDIA's Python packages, PyTorch's among them, hold the same files as an installed toolkit, in folders where Numba does
not look: it knows CUDA_HOME/nvvm/lib64, CUDA_HOME/nvvm/libdevice and CUDA_HOME/lib64.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# part → where it may be under a root, and where Numba looks for it under CUDA_HOME ("" where it does not)
PARTS = {
    "libnvvm": (
        ("nvvm/lib64/libnvvm.so*", "lib/libnvvm.so*", "lib64/libnvvm.so*", "libnvvm.so*"),
        "nvvm/lib64/libnvvm.so",
    ),
    "libdevice": (
        ("nvvm/libdevice/libdevice*.bc", "libdevice/libdevice*.bc", "lib/libdevice*.bc"),
        "nvvm/libdevice/libdevice.10.bc",
    ),
    "cudart": (("lib64/libcudart.so*", "lib/libcudart.so*"), "lib64/libcudart.so"),
    "cudadevrt": (("lib64/libcudadevrt.a", "lib/libcudadevrt.a"), "lib64/libcudadevrt.a"),
    "ptxas": (("bin/ptxas",), ""),
    "nvdisasm": (("bin/nvdisasm",), ""),
}
INSTALLED = ("/usr/local/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr/lib/x86_64-linux-gnu", "/usr")
WHEELS = ("nvidia/cu[0-9]*", "nvidia/cuda_nvcc", "nvidia/cuda_runtime", "triton/backends/nvidia")


def roots() -> Iterator[Path]:
    """Folders that may hold a toolkit, the likeliest first: installed ones, then Python packages."""
    named = (os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH"))
    for folder in (*named, *INSTALLED):
        if folder:
            yield Path(folder)
    for entry in filter(None, sys.path):
        for pattern in WHEELS:
            yield from sorted(Path(entry).glob(pattern), reverse=True)


def find() -> dict[str, Path]:
    """{part: file} of every part that is there."""
    found: dict[str, Path] = {}
    for root in roots():
        for part, (patterns, _) in PARTS.items():
            files = [file for pattern in patterns for file in sorted(root.glob(pattern))]
            if part not in found and files:
                found[part] = files[-1].resolve()
    return found


def gather(folder: Path) -> dict[str, Path]:
    """Links what Numba needs into `folder` and makes it this process's CUDA_HOME; {part: file} of all that was found.

    Must come before Numba first looks for its libraries: it remembers what it found.
    """
    found = find()
    for part, file in found.items():
        if place := PARTS[part][1]:
            link = folder / place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    os.environ["CUDA_HOME"] = str(folder)
    return found


def main() -> None:
    """Links for a shell: `export` on stdout, what was found on stderr."""
    folder = Path(sys.argv[1]).resolve()
    found = gather(folder)
    for part in PARTS:
        print(f"{part}: {found.get(part, 'not found')}", file=sys.stderr)
    print(f"export CUDA_HOME={folder}")


if __name__ == "__main__":
    main()
