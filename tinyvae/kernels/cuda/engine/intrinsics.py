"""Instructions that Numba has no name for: loads and stores of 128 bits, copies in the background, tensor cores, the
cosine and sine of half turns. In the simulator, the same in plain Python.

Each is written twice, once as the machine's instruction and once for the simulator, and is called in one way:
    a0, a1, a2, a3 = load4(array, index)      four neighbours; array[index] is aligned to 16 bytes, of bytes to four
    store4(array, index, a0, a1, a2, a3)
    cos_pi(x), sin_pi(x)                      cos πx, sin πx in x's dtype; unlike math.cos, no large x needs a stack
    copy1(shared, to, source, at, inside)     shared[to] = source[at] if inside else 0, some time before wait_copies
    copy16(shared, to, source, at, inside)    the same with the 16 bytes that begin there, on 16 bytes on both sides
    commit_copies()                           closes a group of copies: all that this thread began since the last one
    wait_copies(n)                            until at most the n youngest groups of this thread are under way
    x = anew(x)                               the uint32 it was; what follows from it occupies no register until then
    a0, a1 = load2(array, index)              two neighbours; array[index] is aligned to two of them
    bits = tf32(x)                            a float32 rounded for mma_tf32, which ignores its last 13 bits; a uint32
    c0, … c3 = mma_tf32(c0, … c3, a0, … a3, b0, b1)
                                              c + a b by a whole warp: a 16×8, b 8×8, c 16×8. Lane 4 g + q holds of a
                                              rows g, g + 8, g, g + 8 at columns q, q, q + 4, q + 4; of b rows q, q + 4
                                              at column g; of c columns 2 q, 2 q + 1 of row g, then of row g + 8
"""

from __future__ import annotations

import math

import numpy as np
from numba import config

if config.ENABLE_CUDASIM:
    from threading import current_thread, local

    class _Copies(local):
        """A thread's copies, none of them made yet: so that a kernel that forgets to wait reads what was there."""

        def __init__(self):
            self.open, self.groups = [], []

    _copies = _Copies()

    def _copy(shared, to, source, at, inside, count):
        to, at = int(to), int(at)
        _copies.open.append((shared, to, source[at : at + count].copy() if inside else np.zeros(count), count))

    def copy1(shared, to, source, at, inside):
        _copy(shared, to, source, at, inside, 1)

    def copy16(shared, to, source, at, inside):
        _copy(shared, to, source, at, inside, 16 // source.dtype.itemsize)

    def commit_copies():
        _copies.groups.append(_copies.open)
        _copies.open = []

    def wait_copies(n):
        while len(_copies.groups) > n:
            for shared, to, values, count in _copies.groups.pop(0):
                shared[to : to + count] = values

    def cos_pi(x):
        return type(x)(math.cos(math.pi * x))

    def sin_pi(x):
        return type(x)(math.sin(math.pi * x))

    def load4(array, index):
        return array[index], array[index + 1], array[index + 2], array[index + 3]

    def store4(array, index, a, b, c, d):
        array[index], array[index + 1], array[index + 2], array[index + 3] = a, b, c, d

    def anew(x):
        return x

    def load2(array, index):
        return array[index], array[index + 1]

    def tf32(x):
        bits = int(np.float32(x).view(np.int32))
        return np.uint32(max(bits, (bits + 0x1000 + 2**31) % 2**32 - 2**31) % 2**32)

    _fragments = {}

    def mma_tf32(c0, c1, c2, c3, *ab):
        me = current_thread()  # the simulator's thread: every thread of a block passes here the same number of times
        warp, lane = divmod(me.threadIdx.x, 32)
        me.turn = 1 - getattr(me, "turn", 0)  # two sets in turns: nobody overwrites what another still reads
        fragments = _fragments.setdefault((me.turn, warp), {})
        fragments[lane] = (np.array(ab, np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        me.syncthreads()
        g, q = divmod(lane, 4)
        a = np.array([[fragments[4 * g + k % 4][2 * (k // 4) + h] for k in range(8)] for h in range(2)])
        b = np.array([[fragments[4 * (2 * q + h) + k % 4][4 + k // 4] for h in range(2)] for k in range(8)])
        with np.errstate(all="ignore"):  # a GPU does not warn
            return tuple(np.float32(c + x) for c, x in zip((c0, c1, c2, c3), (a @ b).reshape(4), strict=True))

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

    def _alignment(kind, count=4):
        return min(16, count * kind.bitwidth // 8)

    def _vector(context, builder, array_type, array, index, count):
        """A pointer to the vector of numbers that begins at `index`, in the array's own address space."""
        data = context.make_array(array_type)(context, builder, array).data
        pointer = builder.gep(data, [index])
        vector = ir.VectorType(data.type.pointee, count)
        return builder.bitcast(pointer, vector.as_pointer(data.type.addrspace))

    def _loader(count):
        def typed(typing, array, index):
            size = _alignment(array.dtype, count)

            def generate(context, builder, signature, arguments):
                vector = builder.load(_vector(context, builder, signature.args[0], *arguments, count), align=size)
                lanes = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(count)]
                return cgutils.pack_array(builder, lanes)

            return types.UniTuple(array.dtype, count)(array, index), generate

        return typed

    load2, load4 = intrinsic(_loader(2)), intrinsic(_loader(4))

    @intrinsic
    def store4(typing, array, index, a, b, c, d):
        kind = array.dtype
        signature = types.void(array, index, kind, kind, kind, kind)

        def generate(context, builder, signature, arguments):
            pointer = _vector(context, builder, signature.args[0], *arguments[:2], 4)
            vector = ir.Constant(pointer.type.pointee, ir.Undefined)
            for i, value in enumerate(arguments[2:]):
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=_alignment(kind))
            return context.get_dummy_value()

        return signature, generate

    def _asm(builder, result, text, constraints, arguments, side_effect=True):
        kind = ir.FunctionType(result, [a.type for a in arguments])
        return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=side_effect), arguments)

    def _copier(bytes_of):
        """An intrinsic that copies bytes_of(dtype) bytes from global to shared memory by way of no register."""

        def typed(typing, shared, to, source, at, inside):
            count = bytes_of(source.dtype)
            way = "cg" if count == 16 else "ca"  # 16 bytes may pass by the first-level cache

            def generate(context, builder, signature, arguments):
                pointers = []
                for array_type, array, index in zip(signature.args[::2], arguments[::2], arguments[1::2], strict=False):
                    data = context.make_array(array_type)(context, builder, array).data
                    pointers.append(builder.gep(data, [index]))
                inner = builder.addrspacecast(pointers[0], ir.PointerType(pointers[0].type.pointee, SHARED))
                size = builder.select(arguments[4], ir.Constant(ir.IntType(32), count), ir.Constant(ir.IntType(32), 0))
                _asm(
                    builder, ir.VoidType(), f"cp.async.{way}.shared.global [$0], [$1], {count}, $2;", "r,l,r,~{memory}",
                    [builder.ptrtoint(inner, ir.IntType(32)), builder.ptrtoint(pointers[1], ir.IntType(64)), size],
                )  # fmt: skip
                return context.get_dummy_value()

            return types.void(shared, to, source, at, types.boolean), generate

        return typed

    SHARED = 3  # the address space
    copy1 = intrinsic(_copier(lambda dtype: dtype.bitwidth // 8))
    copy16 = intrinsic(_copier(lambda dtype: 16))

    @intrinsic
    def commit_copies(typing):
        def generate(context, builder, signature, arguments):
            _asm(builder, ir.VoidType(), "cp.async.commit_group;", "~{memory}", [])
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic(prefer_literal=True)
    def wait_copies(typing, n):
        def generate(context, builder, signature, arguments):
            _asm(builder, ir.VoidType(), f"cp.async.wait_group {n.literal_value};", "~{memory}", [])
            return context.get_dummy_value()

        return types.void(n), generate

    @intrinsic
    def tf32(typing, x):
        def generate(context, builder, signature, arguments):
            # to the nearest, halves away from 0: what cvt.rna.tf32 does in three instructions. The larger of the two
            # keeps the GPU's own NaN, 0x7fffffff, from becoming a zero
            bits = builder.bitcast(arguments[0], ir.IntType(32))
            text = "{ .reg .s32 t; add.s32 t, $1, 0x1000; max.s32 $0, t, $1; }"
            return _asm(builder, ir.IntType(32), text, "=r,r", [bits], False)

        return types.uint32(types.float32), generate

    @intrinsic
    def mma_tf32(typing, c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
        word, real = types.uint32, types.float32

        def generate(context, builder, signature, arguments):
            text = (
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                "{$0, $1, $2, $3}, {$8, $9, $10, $11}, {$12, $13}, {$4, $5, $6, $7};"
            )
            four = ir.LiteralStructType([ir.FloatType()] * 4)
            found = _asm(builder, four, text, "=f,=f,=f,=f,f,f,f,f,r,r,r,r,r,r", arguments, False)
            return cgutils.pack_array(builder, [builder.extract_value(found, i) for i in range(4)])

        return types.UniTuple(real, 4)(real, real, real, real, word, word, word, word, word, word), generate

    @intrinsic
    def anew(typing, x):
        def generate(context, builder, signature, arguments):
            return _asm(builder, ir.IntType(32), "mov.u32 $0, $1;", "=r,r", arguments)

        return types.uint32(types.uint32), generate
