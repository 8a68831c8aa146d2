"""Functions of one number, cheaper than the library's because x is confined.
It knows numbers. In the simulator they are the exact functions in plain Python.

Why: at 4 TB/s an H200 has some 50 instructions for each float32 that is read and written. The library's log1p takes 30,
a rounded quotient 10 and a branch.
"""

from __future__ import annotations

import math

from numba import config

if config.ENABLE_CUDASIM:
    log1p_unit = math.log1p

    def reciprocal(x):
        return type(x)(1) / x

else:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    from ...cpu.engine.vector_math import FORMATS

    @intrinsic
    def log1p_unit(typing, x):
        """log(1 + x) for 0 ≤ x ≤ 1: the polynomial of the CPU column, 1.6 ulp. NaN stays NaN."""
        form = FORMATS[x]

        def generate(context, builder, signature, arguments):
            (value,) = arguments
            *rest, total = (ir.Constant(value.type, float(form.real(c))) for c in form.LOG1P)
            for coefficient in reversed(rest):
                total = builder.fma(total, value, coefficient)
            return builder.fmul(value, total)

        return x(x), generate

    @intrinsic
    def reciprocal(typing, x):
        """1 / x for a normal x that is not huge: in float32 one instruction, 1 ulp. NaN stays NaN."""

        def generate(context, builder, signature, arguments):
            (value,) = arguments
            if x == types.float32:
                kind = ir.FunctionType(value.type, [value.type])
                return builder.asm(kind, "rcp.approx.ftz.f32 $0, $1;", "=f,f", [value], side_effect=False)
            return builder.fdiv(ir.Constant(value.type, 1.0), value)

        return x(x), generate
