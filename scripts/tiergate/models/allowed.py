"""What ``torch.load(weights_only=True)`` takes: names of torch 2.13's own unpickler."""

from __future__ import annotations

_ELEMENTS = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_STORAGES = ("ComplexDouble", "ComplexFloat", "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8")
_SPARSE = ("BFloat16", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
_DTYPES = (
    "bfloat16", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8", "bool", "complex128",
    "complex32", "complex64", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "qint32", "qint8",
    "quint2x4", "quint4x2", "quint8",
)  # fmt: skip
_SCHEMES = (
    "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric",
    "per_tensor_affine", "per_tensor_symmetric",
)  # fmt: skip
_REBUILD = (
    "device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage",
    "nested_tensor", "parameter", "parameter_with_state", "qtensor", "sparse_tensor", "tensor",
    "tensor_v2", "tensor_v3", "wrapper_subclass",
)  # fmt: skip

GLOBALS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        *(f"torch.{kind}{what}" for kind in _ELEMENTS for what in ("Storage", "Tensor")),
        *(f"torch.cuda.{kind}{what}" for kind in _ELEMENTS for what in ("Storage", "Tensor")),
        *(f"torch.{kind}Storage" for kind in _STORAGES),
        *(f"torch.cuda.{kind}Storage" for kind in ("ComplexDouble", "ComplexFloat")),
        *(f"torch.{place}sparse.{kind}Tensor" for place in ("", "cuda.") for kind in _SPARSE),
        *(f"torch.{name}" for name in (*_DTYPES, *_SCHEMES)),
        *(f"torch.{sign}int{bits}" for sign in ("", "u") for bits in _BITS),
        *(f"torch._utils._rebuild_{name}" for name in _REBUILD),
    }
)

OPCODES = frozenset(
    {
        "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID",
        "BINPUT", "BINUNICODE", "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE",
        "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWOBJ", "NEWTRUE",
        "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "SHORT_BINSTRING", "STOP", "TUPLE",
        "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip

_SCALARS = ("bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object",
            "range", "slice", "str", "tuple")  # fmt: skip

HARMLESS = frozenset(
    {
        "argparse.Namespace",
        "collections.defaultdict",
        "collections.deque",
        "copyreg._reconstructor",
        "decimal.Decimal",
        "fractions.Fraction",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "types.SimpleNamespace",
        *(f"builtins.{name}" for name in _SCALARS),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(
            f"pathlib.{name}"
            for name in ("PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath")
        ),
    }
)
"""Beyond the names above: types whose construction runs nothing, for the policy ``scan``."""
