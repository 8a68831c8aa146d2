"""Instructions that Numba has no name for: loads and stores of 128 bits, the cosine and sine of half turns. In the
simulator, the same in plain Python.
It knows instructions and their arguments, and nothing of what they are used for.

Each is written twice, once as the machine's instruction and once for the simulator, and is called in one way:
    a0, a1, a2, a3 = load4(array, index)      four neighbours; array[index] stands on 16 bytes, of bytes on four
    store4(array, index, a0, a1, a2, a3)
    cos_pi(x), sin_pi(x)                      cos πx, sin πx in x's dtype; unlike math.cos, no large x needs a stack
"""

from __future__ import annotations

import math

from numba import config

if config.ENABLE_CUDASIM:

    def cos_pi(x):
        return type(x)(math.cos(math.pi * x))

    def sin_pi(x):
        return type(x)(math.sin(math.pi * x))

    def load4(array, index):
        return array[index], array[index + 1], array[index + 2], array[index + 3]

    def store4(array, index, a, b, c, d):
        array[index], array[index + 1], array[index + 2], array[index + 3] = a, b, c, d

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    def _libdevice(name):
        """A function of NVIDIA's library of one float, in the float's own dtype."""

        @intrinsic
        def call(typing, x):
            def generate(context, builder, signature, arguments):
                kind = arguments[0].type
                function = ir.FunctionType(kind, [kind])
                full = f"__nv_{name}{'f' if x.bitwidth == 32 else ''}"
                return builder.call(cgutils.get_or_insert_function(builder.module, function, full), arguments)

            return x(x), generate

        return call

    cos_pi, sin_pi = _libdevice("cospi"), _libdevice("sinpi")

    def _alignment(kind):
        return min(16, 4 * kind.bitwidth // 8)

    def _quad(context, builder, array_type, array, index):
        """A pointer to the vector of four numbers that begins at `index`, in the array's own address space."""
        data = context.make_array(array_type)(context, builder, array).data
        pointer = builder.gep(data, [index])
        vector = ir.VectorType(data.type.pointee, 4)
        return builder.bitcast(pointer, vector.as_pointer(data.type.addrspace))

    @intrinsic
    def load4(typing, array, index):
        signature = types.UniTuple(array.dtype, 4)(array, index)

        def generate(context, builder, signature, arguments):
            vector = builder.load(_quad(context, builder, signature.args[0], *arguments), align=_alignment(array.dtype))
            lanes = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(4)]
            return cgutils.pack_array(builder, lanes)

        return signature, generate

    @intrinsic
    def store4(typing, array, index, a, b, c, d):
        kind = array.dtype
        signature = types.void(array, index, kind, kind, kind, kind)

        def generate(context, builder, signature, arguments):
            pointer = _quad(context, builder, signature.args[0], *arguments[:2])
            vector = ir.Constant(pointer.type.pointee, ir.Undefined)
            for i, value in enumerate(arguments[2:]):
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=_alignment(kind))
            return context.get_dummy_value()

        return signature, generate
