"""exp, log and related functions in basic arithmetic, so that LLVM computes a whole vector of them at a time.

A loop that calls the C library's exp runs one number at a time. A loop of sums, products and comparisons alone becomes
vector code. So each function here brings its argument into a short interval where a polynomial is as good as the dtype,
and undoes that afterwards. Every product with a following sum is a `muladd`: no compiler flag decides how it rounds, so
a number gets the same bits wherever in a vector it is. NaN stays NaN.

Errors are stated for float32 and float64, as the largest seen among 10⁷ numbers, in units in the last place (ulp).
Coefficients: interpolation at Chebyshev points, in extended precision, rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# ------------------------------------------------------------------------------------------------ words of LLVM


def _named(builder, name, kind, count):
    """An LLVM intrinsic of `count` arguments of one kind."""
    name = f"{name}.f{32 if isinstance(kind, ir.FloatType) else 64}"
    return builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind] * count), name)


def _muladd(builder, a, b, c):
    return builder.call(_named(builder, "llvm.fmuladd", a.type, 3), [a, b, c])


@intrinsic
def muladd(typing, a, b, c):
    """a · b + c, in one rounding where the machine has the instruction."""
    return a(a, a, a), lambda context, builder, signature, arguments: _muladd(builder, *arguments)


@intrinsic
def polynomial(typing, x, coefficients):
    """Σ coefficients[i] · xⁱ by Horner's rule: one muladd each."""

    def generate(context, builder, signature, arguments):
        x, packed = arguments
        numbers = [builder.extract_value(packed, i) for i in range(coefficients.count)]
        total = numbers.pop()
        while numbers:
            total = _muladd(builder, total, x, numbers.pop())
        return total

    return x(x, coefficients), generate


@intrinsic
def add_in_any_order(typing, total, term):
    """total + term, for sums over a loop: LLVM may keep one partial sum per lane, always the same ones."""
    return total(total, total), lambda context, builder, signature, a: builder.fadd(*a, flags=("reassoc",))


@intrinsic
def power_of_two(typing, shifted, bias):
    """2^(n + bias) for shifted = n + ROUND: the lowest bits of that sum are n, and become the exponent."""

    def generate(context, builder, signature, arguments):
        fraction, middle = (23, 127) if shifted.bitwidth == 32 else (52, 1023)
        integer = ir.IntType(shifted.bitwidth)
        n = builder.bitcast(arguments[0], integer)
        lift = builder.trunc(arguments[1], integer) if shifted.bitwidth == 32 else arguments[1]
        exponent = builder.add(builder.add(n, lift), ir.Constant(integer, middle))
        return builder.bitcast(builder.shl(exponent, ir.Constant(integer, fraction)), arguments[0].type)

    return shifted(shifted, types.int64), generate


@intrinsic
def split(typing, x):
    """(m, n) with x = m · 2ⁿ and ½√2 ≤ m < √2, both of x's dtype; x positive and normal."""

    def generate(context, builder, signature, arguments):
        bits, fraction, root = (32, 23, 0x3F3504F3) if x.bitwidth == 32 else (64, 52, 0x3FE6A09E667F3BCD)
        integer = ir.IntType(bits)
        word = builder.bitcast(arguments[0], integer)
        n = builder.ashr(builder.sub(word, ir.Constant(integer, root)), ir.Constant(integer, fraction))
        m = builder.bitcast(builder.sub(word, builder.shl(n, ir.Constant(integer, fraction))), arguments[0].type)
        return context.make_tuple(builder, signature.return_type, [m, builder.sitofp(n, m.type)])

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def unit(typing, word, kind):
    """(word >> 8) · 2⁻²⁴ in kind's dtype: the uniform number in [0, 1) of a random uint32, exact in both dtypes."""

    def generate(context, builder, signature, arguments):
        number = builder.lshr(arguments[0], ir.Constant(arguments[0].type, 8))
        number = builder.sitofp(number, arguments[1].type)  # 24 bits: the sign is never set
        return builder.fmul(number, ir.Constant(number.type, 2.0**-24))

    return kind(types.uint32, kind), generate


@intrinsic
def stack_array(typing, kind, size):
    """A pointer, for carray, to `size` (a literal) numbers of kind's dtype on the stack, until the caller returns."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    count = size.literal_value

    def generate(context, builder, signature, arguments):
        with builder.goto_entry_block():
            buffer = builder.alloca(ir.ArrayType(context.get_data_type(kind), count))
            buffer.align = 64
        return builder.bitcast(buffer, context.get_value_type(signature.return_type))

    return types.CPointer(kind)(kind, size), generate


# ------------------------------------------------------------------------------------------------ one text, two dtypes

# compiled into its callers: a loop with a call in it is no vector loop
INLINED = {"error_model": "numpy", "forceinline": True}
inlined = njit(**INLINED)


class Format(NamedTuple):
    """What is particular to float32 and to float64. Polynomials: lowest power first."""

    real: Callable[[float], Any]
    ROUND: float  # adding it to a number, |number| < 2²², rounds it to an integer
    LN2_HIGH: float  # a few leading bits of ln 2, whose products with an exponent are exact, and the rest
    LN2_LOW: float
    LOWEST: float  # below it exp is 0, above HIGHEST infinite; below SMALL expm1 is −1
    HIGHEST: float
    SMALL: float
    EXP: tuple[float, ...]  # (exp(r) − 1 − r) / r², |r| ≤ ½ ln 2
    LOG1P: tuple[float, ...]  # log(1 + x) / x, 0 ≤ x ≤ 1
    LOG: tuple[float, ...]  # (log(1 + f) − f + ½ f²) / f³, ½√2 ≤ 1 + f ≤ √2
    SIN: tuple[float, ...]  # sin(2π f) / f in powers of f², |f| ≤ 1/8
    COS: tuple[float, ...]  # cos(2π f), likewise


FORMATS = {
    types.float32: Format(
        np.float32, 1.5 * 2**23, 0.693359375, -2.12194440e-4, -104.0, 89.0, -18.0,
        (0.5, 0.166665763, 0.0416665524, 0.00836329255, 0.00139263261),
        (1, -0.499998927, 0.333297104, -0.249516159, 0.196632743, -0.152696669, 0.105436236, -0.0563736111,
         0.0195425265, -0.00317605701),
        (0.333333313, -0.24999997, 0.20000717, -0.166678071, 0.142490074, -0.124255233, 0.116857849, -0.114812121,
         0.0697251856),
        (6.28318548, -41.3416634, 81.5925446, -75.4016113),
        (1, -19.7392082, 64.9393158, -85.4428482, 59.2201691),
    ),
    types.float64: Format(
        np.float64, 1.5 * 2**52, 6.93147180369123816490e-01, 1.90821492927058770002e-10, -746.0, 710.0, -40.0,
        (0.5000000000000001, 0.16666666666666669, 0.041666666666623414, 0.008333333333330173, 0.0013888888917559681,
         0.00019841269862557213, 2.4801520766927575e-05, 2.7557269057463307e-06, 2.7620337323088414e-07,
         2.5100170283605068e-08),
        (1.0, -0.4999999999999903, 0.33333333333193216, -0.2499999999185184, 0.1999999974670446, -0.16666661809011932,
         0.14285651644482142, -0.12499425054891863, 0.11107202360391241, -0.09979734750938515, 0.09008998100415172,
         -0.08070718723035411, 0.07014826906728493, -0.05718217361668178, 0.04191583855416476, -0.026388783688335457,
         0.013591102748510562, -0.005417439044408855, 0.0015518780176838238, -0.00028235642682938346,
         2.4396393980298724e-05),
        (0.3333333333333333, -0.24999999999998584, 0.20000000000003454, -0.16666666667369945, 0.14285714285644538,
         -0.12499999897948076, 0.11111111007394538, -0.1000000661616276, 0.09090921164199088, -0.08333109973906512,
         0.07691738344461482, -0.07146930783554017, 0.06680394423576352, -0.062132990533362506, 0.057062399525016586,
         -0.05635557315704492, 0.0636309848990258, -0.0596123864559181, 0.027063036354234005),
        (6.283185307179586, -41.34170224039965, 81.60524927595426, -76.70585970583228, 42.05868519922452,
         -15.093813793999809, 3.781062534877232),
        (1.0, -19.73920880217872, 64.93939402266962, -85.45681720697598, 60.24464138987241, -26.426255151629448,
         7.903236389160156, -1.69873046875),
    ),
}  # fmt: skip


def typed(write: Callable[[Callable[[float], Any], Format], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """A function for compiled code that `write` writes for the dtype of its argument.

    `write` takes the type of its constants, so that none of them is a float64 that would drag float32 along, and the
    format with all numbers in that type; the argument of what it returns is named x, as Numba wants it.
    """

    def function(x: Any) -> Any:
        raise TypeError(f"{write.__name__} is for compiled code")

    formats = {kind: Format(*(_as(f.real, value) for value in f)) for kind, f in FORMATS.items()}
    overload(function, jit_options=INLINED)(lambda x: write(formats[x].real, formats[x]) if x in formats else None)
    function.__name__, function.__doc__ = write.__name__, write.__doc__
    return function


def _as(real, value):
    if isinstance(value, tuple):
        return tuple(real(v) for v in value)
    return value if callable(value) else real(value)


# ------------------------------------------------------------------------------------------------ functions


@typed
def _expm1_reduced(real, F):
    """(r + r² Q(r), n + ROUND) for x = n ln 2 + r, |r| ≤ ½ ln 2: exp(x) = 2ⁿ (1 + the first)."""
    ROUND, LN2_HIGH, LN2_LOW, EXP = F.ROUND, F.LN2_HIGH, F.LN2_LOW, F.EXP
    per_ln2 = real(1 / np.log(2))

    def reduced(x):
        shifted = muladd(x, per_ln2, ROUND)
        n = shifted - ROUND
        r = muladd(n, -LN2_LOW, muladd(n, -LN2_HIGH, x))
        return muladd(r * r, polynomial(r, EXP), r), shifted

    return reduced


@typed
def exp(real, F):
    """exp(x), 0 and infinity included. 1.1, 1.1 ulp."""
    LOWEST, HIGHEST, ROUND, one, half = F.LOWEST, F.HIGHEST, F.ROUND, real(1), real(0.5)

    def exp(x):
        x = LOWEST if x < LOWEST else x  # comparisons in this order let NaN pass
        x = HIGHEST if x > HIGHEST else x
        p, shifted = _expm1_reduced(x)
        some = muladd(shifted - ROUND, half, ROUND)  # 2ⁿ in two factors: n may be below or above any exponent
        rest = shifted - (some - ROUND)
        return (one + p) * power_of_two(some, 0) * power_of_two(rest, 0)

    return exp


@typed
def decay(real, F):
    """exp(−|x|), cheaper than exp: one factor 2ⁿ, lifted by 64 (512) and let down again. 1.1, 1.1 ulp."""
    lift, LOWEST, one = (64, F.LOWEST, real(1)) if real is np.float32 else (512, F.LOWEST, real(1))
    lowered = real(2.0**-lift)

    def decay(x):
        x = -abs(x)
        x = LOWEST if x < LOWEST else x
        p, shifted = _expm1_reduced(x)
        return (one + p) * power_of_two(shifted, lift) * lowered

    return decay


@typed
def expm1(real, F):
    """exp(x) − 1, accurate near 0: 2ⁿ p + (2ⁿ − 1). 1.7, 2.2 ulp."""
    SMALL, HIGHEST, half, two = F.SMALL, F.HIGHEST, real(0.5), real(2)

    def expm1(x):
        x = SMALL if x < SMALL else x
        x = HIGHEST if x > HIGHEST else x
        p, shifted = _expm1_reduced(x)
        s = power_of_two(shifted, -1)  # half of it: 2ⁿ itself may be infinite
        return two * muladd(s, p, s - half)

    return expm1


@typed
def log(real, F):
    """log(x) of a positive normal number. 0.9, 1.1 ulp."""
    LN2_HIGH, LN2_LOW, LOG, one, half = F.LN2_HIGH, F.LN2_LOW, F.LOG, real(1), real(0.5)

    def log(x):
        m, n = split(x)
        f = m - one
        tail = f * f * muladd(f, polynomial(f, LOG), -half)
        return muladd(n, LN2_HIGH, f + muladd(n, LN2_LOW, tail))

    return log


@typed
def log1p(real, F):
    """log(1 + x) for 0 ≤ x ≤ 1. 1.6, 1.6 ulp."""
    LOG1P = F.LOG1P

    def log1p(x):
        return x * polynomial(x, LOG1P)

    return log1p


@typed
def cos_sin_turn(real, F):
    """(cos 2πx, sin 2πx) for 0 ≤ x < 1 a multiple of 2⁻²⁴: quarter turns come off exactly. 1.7, 1.6 ulp."""
    ROUND, SIN, COS, four, quarter = F.ROUND, F.SIN, F.COS, real(4), real(0.25)
    one, two, three = real(1), real(2), real(3)

    def turn(x):
        q = muladd(x, four, ROUND) - ROUND  # 0 … 4
        f = muladd(q, -quarter, x)
        s, c = f * polynomial(f * f, SIN), polynomial(f * f, COS)
        odd = (q == one) | (q == three)
        cosine, sine = (s if odd else c), (c if odd else s)
        return (-cosine if (q == one) | (q == two) else cosine), (-sine if (q == two) | (q == three) else sine)

    return turn


@typed
def tanh(real, F):
    """tanh(x) = −t / (2 + t) with t = expm1(−2 |x|), and the sign of x. 2.5, 2.6 ulp."""
    zero, two = real(0), real(2)

    def tanh(x):
        t = expm1(-two * abs(x))
        y = t / (two + t)
        return y if x < 0 else zero - y

    return tanh


@typed
def sigmoid(real, F):
    """1 / (1 + exp(−x)) without overflow. 2.4, 2.4 ulp."""
    one = real(1)

    def sigmoid(x):
        e = decay(x)
        return (e if x < 0 else one) / (one + e)

    return sigmoid


@typed
def softplus(real, F):
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(−|x|)). 2.1, 2.1 ulp."""
    zero = real(0)

    def softplus(x):
        return (x if x > 0 else zero) + log1p(decay(x))

    return softplus
