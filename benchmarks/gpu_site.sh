#!/usr/bin/env bash
# Packs what a GPU machine without a package index is likely to lack: Numba, the test tools, pictures. About 45 MiB, for
# Python 3.12 on Linux, x86-64. NumPy, Pillow and PyTorch must be there. benchmarks/gpu.sh unpacks what it finds.
# Usage: benchmarks/gpu_site.sh [FILE]     default .nb/site.tar.xz; a few minutes
set -eu
cd "$(dirname "$0")/.."
file=$(realpath -m "${1:-.nb/site.tar.xz}") work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
packages=(numba==0.68.1 llvmlite==0.50.0 pytest iniconfig pluggy pygments packaging hypothesis sortedcontainers
  matplotlib contourpy cycler fonttools kiwisolver pyparsing python-dateutil six safetensors tqdm)
platform=(--no-deps --only-binary=:all: --python-version 3.12 --implementation cp --platform manylinux2014_x86_64)
for n in 17 24 27 28; do platform+=(--platform "manylinux_2_${n}_x86_64"); done
python3 -m pip install -q --no-compile --target "$work/site" "${platform[@]}" "${packages[@]}"
cd "$work/site"
find . -name '*.so' ! -name libllvmlite.so -exec strip --strip-unneeded {} +
strip --strip-unneeded llvmlite/binding/libllvmlite.so
rm -rf bin numba/tests numba/cuda/tests matplotlib/mpl-data/sample_data matplotlib/tests
mkdir -p "$(dirname "$file")"
tar --sort=name --owner=0 --group=0 -cf - . | xz -9 -T 2 >"$file"
ls -l "$file"
