"""Sixteen lanes: vectors as values of compiled code.

Three numba types, `Floats` (16 x float32), `Ints` (16 x int32) and `Mask` (16 x bool), are lowered straight to LLVM's
vector types, so sums stay in registers and LLVM splits them for whatever the processor has (one 512-bit register, two
of 256, four of 128). `+ - *` and comparisons work on them in compiled functions; the rest is below.

Every operation is exact IEEE arithmetic in the order written: nothing is reassociated or contracted behind the
source. So results are the same at any vector width; `fma` alone differs where a processor has no fused multiply-add.

`minimum`, `maximum` and comparisons treat NaN as false: `minimum(nan, x)` is x. Put the doubtful value first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, register_model

LANES = 16

Floats: TypeAlias = Any
"""16 float32 in compiled code. Python's type checker cannot see inside compiled functions, hence Any."""
Ints: TypeAlias = Any
"""16 int32 in compiled code."""
Mask: TypeAlias = Any
"""16 truth values in compiled code."""
Memory: TypeAlias = Any
"""A one-dimensional numpy array, aligned to 64 bytes, in compiled code."""

_I1, _I8, _I16, _I32, _I64, _F32 = (
    ir.IntType(1),
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
)
_FLOATS, _INTS, _MASK = (ir.VectorType(element, LANES) for element in (_F32, _I32, _I1))
_SHORTS = ir.VectorType(_I16, LANES)


class VectorType(types.Type):
    """A numba type that is one LLVM vector."""


class _FloatsType(VectorType):
    pass


class _IntsType(VectorType):
    pass


class _MaskType(VectorType):
    pass


FLOATS, INTS, MASK = _FloatsType("Floats"), _IntsType("Ints"), _MaskType("Mask")


def _register(kind: type[VectorType], vector: ir.VectorType) -> None:
    @register_model(kind)
    class _Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, front: Any) -> None:
            super().__init__(manager, front, vector)


_register(_FloatsType, _FLOATS)
_register(_IntsType, _INTS)
_register(_MaskType, _MASK)

Emit: TypeAlias = Callable[..., Any]


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function whose LLVM code we write ourselves; literal arguments are seen as literals."""
    return numba_intrinsic(prefer_literal=True)(function)


def _operator(symbol: Any, cases: Sequence[tuple[Any, Any, Emit]]) -> None:
    """Teach numba an operator: (operand type, result type, how to emit it) per case."""

    @infer_global(symbol)
    class _Template(ConcreteTemplate):  # type: ignore[misc]
        pass

    _Template.cases = [signature(result, operand, operand) for operand, result, _ in cases]
    for operand, _, emit in cases:

        def lower(context: Any, builder: Any, sig: Any, args: Any, emit: Emit = emit) -> Any:
            return emit(builder, *args)

        lower_builtin(symbol, operand, operand)(lower)


def _compare(sign: str) -> list[tuple[Any, Any, Emit]]:
    return [
        (FLOATS, MASK, lambda b, x, y: b.fcmp_ordered(sign, x, y)),
        (INTS, MASK, lambda b, x, y: b.icmp_signed(sign, x, y)),
    ]


_operator(operator.add, [(FLOATS, FLOATS, lambda b, x, y: b.fadd(x, y)), (INTS, INTS, lambda b, x, y: b.add(x, y))])
_operator(operator.sub, [(FLOATS, FLOATS, lambda b, x, y: b.fsub(x, y)), (INTS, INTS, lambda b, x, y: b.sub(x, y))])
_operator(operator.mul, [(FLOATS, FLOATS, lambda b, x, y: b.fmul(x, y)), (INTS, INTS, lambda b, x, y: b.mul(x, y))])
_operator(operator.truediv, [(FLOATS, FLOATS, lambda b, x, y: b.fdiv(x, y))])
_operator(operator.or_, [(INTS, INTS, lambda b, x, y: b.or_(x, y)), (MASK, MASK, lambda b, x, y: b.or_(x, y))])
_operator(operator.and_, [(INTS, INTS, lambda b, x, y: b.and_(x, y)), (MASK, MASK, lambda b, x, y: b.and_(x, y))])
_operator(operator.lt, _compare("<"))
_operator(operator.gt, _compare(">"))
_operator(operator.eq, _compare("=="))


# Values ---------------------------------------------------------------------------------------------------------------


@intrinsic
def floats(context: Any, number: Any) -> Any:
    """`floats(x)`: a number in all 16 lanes, rounded to float32."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, target.cast(builder, args[0], sig.args[0], types.float32), _FLOATS)

    return FLOATS(number), emit


@intrinsic
def ints(context: Any, number: Any) -> Any:
    """`ints(n)`: an integer in all 16 lanes."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, target.cast(builder, args[0], sig.args[0], types.int32), _INTS)

    return INTS(number), emit


def _unary(llvm_name: str, text: str) -> Any:
    def call(context: Any, value: Any) -> Any:
        def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call(builder, llvm_name, _FLOATS, args)

        return FLOATS(value), emit

    call.__doc__ = text
    return intrinsic(call)


rounded = _unary("llvm.rint.v16f32", "`rounded(x)`: to the nearest integer, halves to even.")
truncated = _unary("llvm.trunc.v16f32", "`truncated(x)`: to an integer towards zero.")
absolute = _unary("llvm.fabs.v16f32", "`absolute(x)`: without the sign.")
square_root = _unary("llvm.sqrt.v16f32", "`square_root(x)`: correctly rounded.")


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """`fma(a, b, c)`: a*b + c, rounded once where the processor can."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.fmuladd.v16f32", _FLOATS, args)

    return FLOATS(a, b, c), emit


@intrinsic
def minimum(context: Any, a: Any, b: Any) -> Any:
    """`minimum(a, b)`: a where a < b, else b."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return FLOATS(a, b), emit


@intrinsic
def maximum(context: Any, a: Any, b: Any) -> Any:
    """`maximum(a, b)`: a where a > b, else b."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return FLOATS(a, b), emit


@intrinsic
def where(context: Any, mask: Any, a: Any, b: Any) -> Any:
    """`where(mask, a, b)`: a in the lanes where mask is true, b in the others."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, b), emit


@intrinsic
def any_lane(context: Any, mask: Any) -> Any:
    """`any_lane(mask)`: whether the mask is true in any lane."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], _I16), ir.Constant(_I16, 0))

    return types.boolean(mask), emit


@intrinsic
def to_ints(context: Any, value: Any) -> Any:
    """`to_ints(x)`: towards zero. The value must fit an int32: clamp it before."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptosi(args[0], _INTS)

    return INTS(value), emit


@intrinsic
def to_floats(context: Any, value: Any) -> Any:
    """`to_floats(n)`: the integers as float32."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _FLOATS)

    return FLOATS(value), emit


@intrinsic
def bits_of(context: Any, value: Any) -> Any:
    """`bits_of(x)`: the bit patterns of floats as integers."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _INTS)

    return INTS(value), emit


@intrinsic
def floats_of_bits(context: Any, value: Any) -> Any:
    """`floats_of_bits(n)`: integers read as the bit patterns of floats."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _FLOATS)

    return FLOATS(value), emit


@intrinsic
def shift_left(context: Any, value: Any, count: Any) -> Any:
    """`shift_left(n, count)`: all lanes by the same count."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        amount = target.cast(builder, args[1], sig.args[1], types.int32)
        return builder.shl(args[0], _broadcast(builder, amount, _INTS))

    return INTS(value, count), emit


@intrinsic
def shift_right(context: Any, value: Any, count: Any) -> Any:
    """`shift_right(n, count)`: all lanes by the same count, zeros from the left."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        amount = target.cast(builder, args[1], sig.args[1], types.int32)
        return builder.lshr(args[0], _broadcast(builder, amount, _INTS))

    return INTS(value, count), emit


def table(values: Sequence[float]) -> Any:
    """A compiled function from `Ints` to `Floats`: `values[n]` in every lane, for 2, 4, 8 or 16 values.

    One permutation with AVX-512, four with AVX2, selections by the bits of the index elsewhere.
    """
    constants = [float(value) for value in values]
    sixteen = constants * (LANES // len(constants))

    def look(context: Any, index: Any) -> Any:
        def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
            features = str(target.codegen().magic_tuple()[2]).split(",")
            if "+avx512f" in features:
                return _call(
                    builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, [ir.Constant(_FLOATS, sixteen), args[0]]
                )
            if "+avx2" in features:
                return _permute_avx2(builder, sixteen, args[0])
            return _select_by_bits(builder, constants, args[0])

        return FLOATS(index), emit

    return intrinsic(look)


# Memory ---------------------------------------------------------------------------------------------------------------


@intrinsic
def load(context: Any, memory: Any, at: Any) -> Any:
    """`load(memory, at)`: float32 memory[at : at + 16]."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_element(target, builder, sig, args, _FLOATS), align=4)

    return FLOATS(memory, at), emit


@intrinsic
def store(context: Any, memory: Any, at: Any, value: Any) -> Any:
    """`store(memory, at, x)`: float32 memory[at : at + 16] = x."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _element(target, builder, sig, args, _FLOATS), align=4)
        return target.get_dummy_value()

    return types.void(memory, at, value), emit


@intrinsic
def load_ints(context: Any, memory: Any, at: Any) -> Any:
    """`load_ints(memory, at)`: int32 memory[at : at + 16]."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_element(target, builder, sig, args, _INTS), align=4)

    return INTS(memory, at), emit


@intrinsic
def store_ints(context: Any, memory: Any, at: Any, value: Any) -> Any:
    """`store_ints(memory, at, n)`: int32 memory[at : at + 16] = n."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _element(target, builder, sig, args, _INTS), align=4)
        return target.get_dummy_value()

    return types.void(memory, at, value), emit


@intrinsic
def gather(context: Any, memory: Any, index: Any) -> Any:
    """`gather(memory, n)`: int32 memory[n[k]] in lane k. Each index must be inside the array."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = target.make_array(sig.args[0])(target, builder, args[0]).data
        result = ir.Constant(_INTS, ir.Undefined)
        for k in range(LANES):
            lane = ir.Constant(_I32, k)
            place = builder.zext(builder.extract_element(args[1], lane), _I64)
            result = builder.insert_element(result, builder.load(builder.gep(data, [place])), lane)
        return result

    return INTS(memory, index), emit


@intrinsic
def transpose_in(context: Any, storage: Any, starts: Any, column: Any, memory: Any, at: Any) -> Any:
    """`transpose_in("bf16", starts, column, memory, at)`: a 16 x 16 block, rows to lanes.

    memory[at + 16*i + k] = row k's weight column + i, where starts[k] (int64) is the row's address. The storage is a
    literal: "f32", "f16" or "bf16"; the weights are widened on the way.
    """
    kind = storage.literal_value

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = target.cast(builder, args[2], sig.args[2], types.int64)
        rows = [_load_row(target, builder, kind, start, offset) for start in _addresses(target, builder, sig, args, 1)]
        first = target.cast(builder, args[4], sig.args[4], types.int64)
        for i, vector in enumerate(_transposed(builder, rows)):
            where_to = _array_element(target, builder, sig.args[3], args[3], first, 16 * i, _FLOATS)
            builder.store(vector, where_to, align=4)
        return target.get_dummy_value()

    return types.void(storage, starts, column, memory, at), emit


@intrinsic
def transpose_out(context: Any, memory: Any, at: Any, starts: Any, offset: Any, words: Any) -> Any:
    """`transpose_out(memory, at, starts, offset, words)`: lanes to rows, `words` (a literal, 1 to 16) int32 each.

    The 4*words bytes at address starts[k] + offset become memory[at + 16*i + k] for i < words; not a byte more.
    """
    count = words.literal_value

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = target.cast(builder, args[1], sig.args[1], types.int64)
        columns = [ir.Constant(_INTS, [0] * LANES)] * LANES
        for i in range(count):
            source = _array_element(target, builder, sig.args[0], args[0], first, 16 * i, _INTS)
            columns[i] = builder.load(source, align=4)
        shift = target.cast(builder, args[3], sig.args[3], types.int64)
        kept = ir.VectorType(_I32, count)
        choose = ir.Constant(kept, list(range(count)))
        for start, vector in zip(_addresses(target, builder, sig, args, 2), _transposed(builder, columns), strict=True):
            part = vector if count == LANES else builder.shuffle_vector(vector, vector, choose)
            builder.store(part, builder.inttoptr(builder.add(start, shift), kept.as_pointer()), align=1)
        return target.get_dummy_value()

    return types.void(memory, at, starts, offset, words), emit


@intrinsic
def store_shorts(context: Any, value: Any, starts: Any, offset: Any) -> Any:
    """`store_shorts(n, starts, offset)`: the low 16 bits of lane k to address starts[k] + offset."""

    def emit(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        shorts = builder.trunc(args[0], _SHORTS)
        shift = target.cast(builder, args[2], sig.args[2], types.int64)
        for k, start in enumerate(_addresses(target, builder, sig, args, 1)):
            short = builder.extract_element(shorts, ir.Constant(_I32, k))
            builder.store(short, builder.inttoptr(builder.add(start, shift), _I16.as_pointer()), align=1)
        return target.get_dummy_value()

    return types.void(value, starts, offset), emit


# How it is emitted ----------------------------------------------------------------------------------------------------


def _broadcast(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * LANES))


def _call(builder: Any, name: str, result: Any, args: Sequence[Any]) -> Any:
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, list(args))


def _array_element(target: Any, builder: Any, kind: Any, array: Any, index: Any, more: int, element: Any) -> Any:
    data = target.make_array(kind)(target, builder, array).data
    place = builder.add(index, ir.Constant(_I64, more)) if more else index
    return builder.bitcast(builder.gep(data, [place]), element.as_pointer())


def _element(target: Any, builder: Any, sig: Any, args: Any, vector: ir.VectorType) -> Any:
    index = target.cast(builder, args[1], sig.args[1], types.int64)
    return _array_element(target, builder, sig.args[0], args[0], index, 0, vector)


def _addresses(target: Any, builder: Any, sig: Any, args: Any, position: int) -> list[Any]:
    """The 16 addresses in the int64 array that is argument `position`."""
    data = target.make_array(sig.args[position])(target, builder, args[position]).data
    return [builder.load(builder.gep(data, [ir.Constant(_I64, k)])) for k in range(LANES)]


def _load_row(target: Any, builder: Any, storage: str, start: Any, column: Any) -> Any:
    """16 weights from `column` of the row at address `start`, widened to float32."""
    size = {"f32": 4, "f16": 2, "bf16": 2}[storage]
    where_from = builder.add(start, builder.mul(column, ir.Constant(_I64, size)))
    if storage == "f32":
        return builder.load(builder.inttoptr(where_from, _FLOATS.as_pointer()), align=4)
    shorts = builder.zext(builder.load(builder.inttoptr(where_from, _SHORTS.as_pointer()), align=2), _INTS)
    if storage == "bf16":
        return builder.bitcast(builder.shl(shorts, _constant(16)), _FLOATS)
    return widen_half(builder, shorts)


def widen_half(builder: Any, bits: Any) -> Any:
    """Binary16 bit patterns in int32 lanes to float32, by integer operations and one exact subtraction.

    Exponents are moved by 127 - 15; a subnormal gets the smallest normal exponent and loses its implicit one again.
    """
    magnitude = builder.shl(builder.and_(bits, _constant(0x7FFF)), _constant(13))
    normal = builder.bitcast(builder.add(magnitude, _constant(112 << 23)), _FLOATS)
    implicit = builder.bitcast(builder.add(magnitude, _constant(113 << 23)), _FLOATS)
    subnormal = builder.fsub(implicit, ir.Constant(_FLOATS, [2.0**-14] * LANES))
    is_normal = builder.icmp_unsigned(">=", magnitude, _constant(1 << 23))
    value = builder.bitcast(builder.select(is_normal, normal, subnormal), _INTS)
    sign = builder.shl(builder.and_(bits, _constant(0x8000)), _constant(16))
    return builder.bitcast(builder.or_(value, sign), _FLOATS)


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_INTS, [number] * LANES)


def _transposed(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """16 vectors of 16 with rows and columns exchanged: four stages of shuffles, like a fast Fourier transform's."""
    vectors = list(rows)
    for step in (8, 4, 2, 1):
        low = ir.Constant(_INTS, [k if not k & step else LANES + k - step for k in range(LANES)])
        high = ir.Constant(_INTS, [k + step if not k & step else LANES + k for k in range(LANES)])
        for i in range(LANES):
            if not i & step:
                a, b = vectors[i], vectors[i + step]
                vectors[i], vectors[i + step] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
    return vectors


def _permute_avx2(builder: Any, constants: Sequence[float], index: Any) -> Any:
    """Look up in two registers of eight per half of the lanes, and choose by the index's fourth bit."""
    eight_floats, eight_ints = ir.VectorType(_F32, 8), ir.VectorType(_I32, 8)
    halves = []
    for first in (0, 8):
        part = builder.shuffle_vector(index, index, ir.Constant(eight_ints, list(range(first, first + 8))))
        low, high = (
            _call(builder, "llvm.x86.avx2.permps", eight_floats, [ir.Constant(eight_floats, list(values)), part])
            for values in (constants[:8], constants[8:])
        )
        upper = builder.icmp_signed(">", part, ir.Constant(eight_ints, [7] * 8))
        halves.append(builder.select(upper, high, low))
    return builder.shuffle_vector(*halves, ir.Constant(_INTS, list(range(LANES))))


def _select_by_bits(builder: Any, constants: Sequence[float], index: Any) -> Any:
    """A tree of selections, lowest bit first."""
    level = [ir.Constant(_FLOATS, [value] * LANES) for value in constants]
    bit = 1
    while len(level) > 1:
        is_set = builder.icmp_signed("!=", builder.and_(index, _constant(bit)), _constant(0))
        level = [builder.select(is_set, level[i + 1], level[i]) for i in range(0, len(level), 2)]
        bit *= 2
    return level[0]
