"""Rung 8, vector tile: a block of C stays in registers for the whole sum over k, in vector code written by hand.

Rungs 6 and 7 still load and store C for every fourth k. Here ROWS × ACROSS vector registers hold a tile of C, with
AVX-512 14 × 2 registers of 16 numbers, a block of 14 × 32. One round of k loads 2 vectors of B and 14 numbers of A,
each repeated in all lanes of a vector, and makes 28 vector multiply-adds; nothing is stored. That is 16 loads for 28
multiply-adds where rung 3 had 84 moves. The 28 sums do not wait for one another, which hides the 4 cycles that each
takes, and 28 + 2 + 1 of the 32 registers are in use: that is where 14 × 2 comes from.

Numba cannot be told to keep a vector in a register, but LLVM, the compiler behind it, can. An *intrinsic* is a function
whose LLVM code we write ourselves, one instruction for each line of `builder`. Its types are plain: <16 x float> is a
vector of 16. `alloca` makes a variable; LLVM keeps those whose address nobody asks for in registers. An array of
Numba's is, to LLVM, an address and strides in bytes.

What does not divide by the tile is left to the last tile: it is moved back until it fits, and makes some elements anew.

Look at: % of peak. This is the machine's own rate wherever A and B come in fast enough.
"""

import numba
from llvmlite import binding, ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

IDEA = "a tile of C in vector registers"
FEATURES = binding.get_host_cpu_features()
# numbers in a vector, and the tile that fits the registers: 32 with AVX-512, 16 with AVX2, 32 with NEON
LANES, ROWS, ACROSS = (16, 14, 2) if FEATURES.get("avx512f") else (8, 6, 2) if FEATURES.get("avx2") else (4, 6, 4)
COLUMNS = ACROSS * LANES
# for each k: load ROWS of A and COLUMNS of B, 4 bytes each, for ROWS · COLUMNS multiply-adds
FLOP_PER_BYTE = 2 * ROWS * COLUMNS / (4 * (ROWS + COLUMNS))
FLOAT, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)


@intrinsic
def tile(typing, a, b, c):
    """c = a b for a (ROWS, K), b (K, COLUMNS), c (ROWS, COLUMNS), float32; the columns of b and of c are neighbours."""

    def generate(context, builder, signature, arguments):
        arrays = [
            context.make_array(kind)(context, builder, x) for kind, x in zip(signature.args, arguments, strict=True)
        ]

        def at(array, i, j, kind):  # the address of array[i, j], of one number or of a vector that starts there
            down, right = cgutils.unpack_tuple(builder, array.strides)
            start = builder.ptrtoint(array.data, I64)
            place = builder.add(start, builder.add(builder.mul(i, down), builder.mul(j, right)))
            return builder.inttoptr(place, kind.as_pointer())

        def load(array, i, j, kind):
            return builder.load(at(array, i, j, kind), align=4)

        def repeat(number):
            one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, I32(0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, LANES), [I32(0)] * LANES))

        a, b, c = arrays
        zero, fuse = ir.Constant(VECTOR, [0.0] * LANES), ("contract",)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(ACROSS)] for _ in range(ROWS)]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, a.shape)[1]) as loop:
            of_b = [load(b, loop.index, I64(v * LANES), VECTOR) for v in range(ACROSS)]
            for i in range(ROWS):
                number = repeat(load(a, I64(i), loop.index, FLOAT))
                for v in range(ACROSS):
                    term = builder.fmul(number, of_b[v], flags=fuse)
                    builder.store(builder.fadd(builder.load(sums[i][v]), term, flags=fuse), sums[i][v])
        for i in range(ROWS):
            for v in range(ACROSS):
                builder.store(builder.load(sums[i][v]), at(c, I64(i), I64(v * LANES), VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(a, b, c), generate


@numba.njit(parallel=True)
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    M, N = c.shape
    if M < ROWS or N < COLUMNS:
        small(a, b, c)
    else:
        for strip in prange((M + ROWS - 1) // ROWS):
            i = min(strip * ROWS, M - ROWS)
            for panel in range((N + COLUMNS - 1) // COLUMNS):
                j = min(panel * COLUMNS, N - COLUMNS)
                tile(a[i : i + ROWS], b[:, j : j + COLUMNS], c[i : i + ROWS, j : j + COLUMNS])


@numba.njit
def small(a, b, c):
    """Rung 3, for what is smaller than a tile."""
    c[:] = 0
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] += a[i, k] * b[k, j]
