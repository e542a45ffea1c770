"""Model files of every form, harmless and not, made of bytes and never loaded.

What the dangerous ones would call is named in them as text; nothing here imports or calls it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
GADGETS = (
    "__builtin__.apply", "__builtin__.eval", "__builtin__.execfile",
    "_aix_support._read_cmd_output", "_io.FileIO", "_osx_support._read_output",
    "_posixsubprocess.fork_exec", "aiohttp.request",
    "asyncio.run", "bdb.Bdb.run", "builtins.__import__", "builtins.breakpoint", "builtins.compile",
    "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.input", "builtins.open",
    "cProfile.run", "code.InteractiveInterpreter.runcode", "codecs.open", "commands.getoutput",
    "ctypes.CDLL", "distutils.spawn.spawn", "doctest.debug_script", "ftplib.FTP",
    "functools.partial", "gc.get_objects", "glob.glob", "http.client.HTTPSConnection",
    "importlib.import_module", "io.open", "linecache.getline", "logging.FileHandler",
    "marshal.loads", "multiprocessing.util.spawnv_passfds", "numpy.f2py.crackfortran.getlincoef",
    "numpy.load", "numpy.testing._private.utils.runstring", "operator.attrgetter", "os.execv",
    "os.popen", "os.spawnl", "os.system", "pathlib.Path.write_text", "pdb.run", "pickle.loads",
    "pip.main", "pkgutil.resolve_name", "platform.popen", "profile.run", "pty.spawn",
    "pydoc.pipepager", "runpy.run_path", "shelve.open", "shutil.rmtree", "smtplib.SMTP",
    "socket.create_connection", "sqlite3.connect", "subprocess.Popen", "sys.setprofile",
    "tempfile.mktemp", "timeit.timeit", "torch.hub.load", "torch.jit.load",
    "torch.serialization.load", "torch.utils.collect_env.run", "trace.Trace.run", "types.CodeType",
    "types.FunctionType", "urllib.request.urlopen", "uuid._get_command_stdout", "venv.create",
    "webbrowser.open", "zipimport.zipimporter",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """One file.

    Attributes:
        group: the row of the table.
        name: the file's name.
        content: its bytes.
        kind: ``dangerous``; ``damaged``, which cannot be known to be harmless; or ``harmless``,
            which ``torch.load(weights_only=True)`` or its own reader takes without running code.
    """

    group: str
    name: str
    content: bytes
    kind: str


def call(module: str = "os", name: str = "system", protocol: int = 2) -> bytes:
    """A pickle that calls something with a string."""
    if protocol >= 4:
        texts = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() + b"\x94" for t in (module, name))
        return b"\x80" + bytes([protocol]) + texts + b"\x93\x94\x8c\x04true\x94\x85\x94R\x94."
    start = b"\x80" + bytes([protocol]) if protocol > 1 else b""
    return start + f"c{module}\n{name}\np0\n(Vtrue\np1\ntp2\nRp3\n.".encode()


def weights() -> bytes:
    """A pickle that ``weights_only=True`` takes."""
    return pickle.dumps(OrderedDict(bias=1.5, step=3), protocol=2)


def legacy(*states: bytes, raw: bytes = b"\4raw\0\0") -> bytes:
    """A file as torch wrote it before 1.6."""
    numbers = pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2)
    return numbers + pickle.dumps({}, 2) + b"".join(states) + pickle.dumps([], 2) + raw


def zipped(
    content: bytes, name: str = "archive/data.pkl", method: int = zipfile.ZIP_STORED, **more: bytes
) -> bytes:
    """A zip archive as torch writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
        archive.writestr("archive/data/0", b"\x80\x02raw bytes of a tensor")
        archive.writestr("archive/version", b"3\n")
        for path, data in more.items():
            archive.writestr(path, data)
    return stream.getvalue()


def tarred(**members: bytes) -> bytes:
    """A tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def array(content: bytes, description: str = "'|O'", count: int = 1, major: int = 1) -> bytes:
    """A numpy file."""
    text = f"{{'descr': {description}, 'fortran_order': False, 'shape': ({count},), }}".encode()
    width = 2 if major == 1 else 4
    text += b" " * (-(len(text) + 9 + width) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([major, 0]) + len(text).to_bytes(width, "little") + text + content


def safetensors(
    extra: bytes = b"", length: int | None = None, size: int = 4, padding: int = 0
) -> bytes:
    """A safetensors file of one float."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (padding - len(header))
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 4 + extra


def gguf(*, tensors: int = 1, version: int = 3, cut: int | None = None) -> bytes:
    """A gguf file of one tensor."""
    key = b"general.name"
    pairs = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 4) + b"tiny"
    tensor = struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 8, 0, 0)
    header = b"GGUF" + struct.pack("<IQQ", version, tensors, 1) + pairs + tensor
    return (header + b"\0" * (-len(header) % 32) + b"\0" * 32)[:cut]


def changed(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite a field of the first record with this signature."""
    at = content.index(signature) + offset
    return content[:at] + value + content[at + len(value) :]


def two_directories() -> bytes:
    """A zip in which Python sees weights, and torch, which trusts offsets, sees the call."""
    longer = len(call()) - len(weights())
    bad = zipped(call(), **{"archive/x": b" " * max(0, -longer)})
    good = zipped(weights(), **{"archive/x": b" " * max(0, longer)})
    begin = good.index(b"PK\x01\x02")
    end = good.index(b"PK\x05\x06")
    bad_begin, bad_end = bad.index(b"PK\x01\x02"), bad.index(b"PK\x05\x06")
    assert (begin, end) == (bad_begin, bad_end)
    # Its end record points to the first directory; the second one lies right in front of it.
    record = changed(good[end:], b"PK\x05\x06", 16, struct.pack("<I", bad_begin))
    return bad[:bad_end] + good[:end] + record


def memoized_decoys() -> bytes:
    """The name that is called comes from the memo, the one that is seen last is another."""
    names = b"\x8c\x02os\x94\x8c\x06system\x94"
    return b"\x80\x04" + names + b"\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93)R."


def shifted_memo() -> bytes:
    """A second pickle, whose memo begins anew."""
    first = b"\x80\x04\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93)R."
    names = b"\x8c\x02os\x94\x8c\x06system\x94"
    return (
        first + b"\x80\x04" + names + b"00\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93)R."
    )


def corpus() -> list[ModelFile]:
    """Return all of them."""
    return [
        ModelFile(group, name, content, kind)
        for group, kind, files in _groups()
        for name, content in files.items()
    ]


def _groups() -> Iterator[tuple[str, str, dict[str, bytes]]]:
    plain = {f"protocol-{p}.pkl": call(protocol=p) for p in range(6)}
    yield "plain pickles", "dangerous", {
        **plain,
        "instance.pkl": b"(S'true'\nios\nsystem\n.",
        "object.pkl": b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
        "newobj.pkl": b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81.",
        "newobj-ex.pkl": b"\x80\x04\x8c\nsubprocess\x8c\x05Popen\x93)}\x92.",
        "build.pkl": b"\x80\x02cos\nenviron\n}b.",
        "items.pkl": b"\x80\x02cos\nenviron\nX\x01\0\0\0aX\x01\0\0\0bs.",
        "python-2.pkl": b"c__builtin__\neval\n(S'1'\ntR.",
        "extension.pkl": b"\x80\x02\x82\x01)R.",
        "second.pkl": weights() + call(),
        "third.pkl": weights() * 2 + call(protocol=0),
        "allowed-and-not.pkl": b"\x80\x02ccollections\nOrderedDict\n)R0" + call()[2:],
        "weights.joblib": call("joblib.numpy_pickle", "load"),
    }  # fmt: skip
    yield (
        "names that are computed",
        "dangerous",
        {
            "memo.pkl": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93)R.",
            "memo-decoys.pkl": memoized_decoys(),
            "memo-of-another.pkl": shifted_memo(),
            "memo-after-list.pkl": b"\x80\x04]\x94\x8c\x02os\x94\x8c\x0bcollections\x94"
            b"\x8c\x06system\x94\x8c\x0bOrderedDict\x94h\x01h\x03\x93)R.",
            "memo-gap.pkl": b"\x80\x04\x8c\x02osq\x05\x8c\x06systemq\x0700h\x05h\x07\x93)R.",
            "duplicated.pkl": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x32)R.",
            "text-escaped.pkl": b"V\\u006fs\nV\\u0073ystem\n\x93)R.",
            "called.pkl": b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93)R.",
            "long-name.pkl": b"\x80\x04X\xd0\x07\0\0" + b"o" * 2000 + b"\x8c\x06system\x93)R.",
            "hexadecimal.pkl": b"I0x10\n0" + call(protocol=0),
            "no-protocol.pkl": b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        },
    )
    yield "zip .pt .ckpt .bin", "dangerous", {
        "model.pt": zipped(call()), "model.ckpt": zipped(call(protocol=4)),
        "model.bin": zipped(call(protocol=0)), "deflated.pt": zipped(call(), method=8),
        "bzip2.pt": zipped(call(), method=12), "lzma.pt": zipped(call(), method=14),
        "hidden-name.pt": zipped(call(), "archive/notes.md"),
        "capitals.pt": zipped(call(), "archive/DATA.PKL"),
        "raw-without-data.pt": zipped(call(), "archive/data/1"),
    }  # fmt: skip
    code = {"archive/constants.pkl": weights(), "archive/code/a.py": b"pass"}
    yield "TorchScript, a program", "dangerous", {"script.pt": zipped(weights(), **code)}
    yield "legacy .pt", "dangerous", {
        "legacy.pt": legacy(call()), "legacy.pth": legacy(call(protocol=0)),
        "legacy-sixth.pt": legacy(weights(), raw=b"") + call(),
        "legacy-magic.pt": call("builtins", "eval") + legacy(weights())[14:],
        "legacy-late.ckpt": legacy(weights(), call()),
    }  # fmt: skip
    yield "legacy tar", "dangerous", {
        "old.tar": tarred(sys_info=weights(), pickle=call()),
        "old.pth": tarred(sys_info=weights(), pickle=weights(), storages=call()),
        "storages.pth": tarred(pickle=weights(), storages=pickle.dumps(1) + b"\0\1raw" + call()),
    }  # fmt: skip
    yield "renamed", "dangerous", {
        "renamed.txt": call(), "renamed.dat": zipped(call()), "renamed.cfg": call(protocol=0),
        "renamed.png": call(protocol=4), "renamed": legacy(call()),
        "unusual-start.log": b"\x8c\x02os\x8c\x06system\x93)R.",
        "long-start.md": b"U\xff" + b"a" * 255 + b"0" + b"U\xff" + b"b" * 255 + b"0" + call()[2:],
        "renamed.csv": gzip.compress(call()), "renamed.json": array(call()),
        "weights.safetensors": call(), "tokens.gguf": zipped(call()), "renamed.tar.gz":
            gzip.compress(tarred(**{"a/model.pkl": call()})),
        "zlib.cache": zlib.compress(call()),
    }  # fmt: skip
    yield "truncated after the call", "dangerous", {
        "cut.pkl": call()[:-1], "cut-4.pkl": call(protocol=4)[:-2],
        "cut-text.txt": call(protocol=0)[:-4], "cut.pkl.gz": gzip.compress(call())[:-6],
    }  # fmt: skip
    bad = zipped(call())
    yield (
        "zip header tricks",
        "dangerous",
        {
            "encrypted.pt": changed(changed(bad, b"PK\x03\x04", 6, b"\1"), b"PK\x01\x02", 8, b"\1"),
            "local-name.pt": changed(bad, b"PK\x03\x04", 30, b"x"),
            "local-crc.pt": changed(bad, b"PK\x03\x04", 14, b"xxxx"),
            "directory-crc.pt": changed(bad, b"PK\x01\x02", 16, b"xxxx"),
            "local-method.pt": changed(bad, b"PK\x03\x04", 8, b"\x63"),
            "duplicate.pt": _duplicated(),
            "front.pt": b"#!/bin/sh\n" * 10 + bad,
            "behind.pt": bad + b"\0" * 40,
            "two-directories.pt": two_directories(),
        },
    )
    yield (
        "two formats in one",
        "dangerous",
        {
            "pickle-and-zip.pt": call() + zipped(weights()),
            "zip-and-pickle-members.pt": zipped(weights(), **{"a.txt": call()}),
            "tar-and-zip.pth": tarred(pickle=call()) + zipped(weights()),
            "gzip-and-zip.pkl": gzip.compress(call()) + zipped(weights()),
            "numpy-and-zip.npy": array(call()) + zipped(weights()),
            "pickle-and-tensors.safetensors": _safetensors_and_pickle(),
        },
    )
    yield "gz xz bz2 lzma zlib", "dangerous", {
        "model.pkl.gz": gzip.compress(call()), "model.pkl.xz": lzma.compress(call()),
        "model.pkl.bz2": bz2.compress(call()), "model.joblib": zlib.compress(call()),
        "model.pkl.lzma": lzma.compress(call(), format=lzma.FORMAT_ALONE),
        "model.pt.gz": gzip.compress(zipped(call())),
        "twice.pkl.gz": gzip.compress(bz2.compress(call())),
    }  # fmt: skip
    yield "archives within archives", "dangerous", {
        "nested.pt": zipped(zipped(call()), "inner.pt"),
        "nested-deflated.zip": zipped(zipped(call(), method=8), "inner.dat", 8),
        "nested.nemo": tarred(**{"weights.ckpt": zipped(call())}),
    }  # fmt: skip
    yield "numpy objects", "dangerous", {
        "objects.npy": array(call()), "version-3.npy": array(call(), major=3),
        "field.npy": array(call(), "[('a', '<f8'), ('b', [('c', '|O')])]"),
        "objects.npz": zipped(array(call()), "x.npy"),
        "deflated.npz": zipped(array(call()), "x.npy", 8),
        "second.npy": array(b"\0" * 8, "'<f8'") + array(call()),
        "behind.npy": array(b"\0" * 24, "[('a', '<f8', (2,)), ('b', '<i8')]") + call(),
    }  # fmt: skip
    yield (
        "other calls that run or reach out",
        "dangerous",
        {
            f"{number:02}-{gadget}.pkl": call(*gadget.rsplit(".", 1), protocol=2 + number % 3)
            for number, gadget in enumerate(GADGETS)
        },
    )
    yield "dotted names", "dangerous", {
        f"dotted-{number}.pkl": call(module, name, protocol=4)
        for number, (module, name) in enumerate(
            [("builtins", "eval.__call__"), ("collections", "OrderedDict.fromkeys.__self__"),
             ("torch", "serialization.os.system"), ("torch._utils", "warnings.sys.modules.get")]
        )
    }  # fmt: skip
    yield "damaged, or not known", "damaged", {
        "half.pt": zipped(weights())[:120], "garbage.pt": b"\x01\x02\x03 no model at all",
        "empty.pth": b"", "short.safetensors": safetensors()[:-2],
        "long.safetensors": safetensors(b"more"),
        "header.safetensors": safetensors(length=10**12), "gap.safetensors": safetensors(size=3),
        "zstd.pt": b"\x28\xb5\x2f\xfd" + b"\0" * 20, "header.npy": b"\x93NUMPY\x01\x00\xff\xff{",
        "short.npy": array(b"\0" * 8, "'<f8'", 2), "trailing.pkl": weights() + b"\0raw",
        "raw-behind.npy": array(b"\0" * 8, "'<f8'") + b"raw",
        "short.gguf": gguf(cut=60), "version.gguf": gguf(version=9),
        "more.gguf": gguf(tensors=10**12), "half.pkl.gz": gzip.compress(weights() * 9)[:40],
        "comment.pt": _comment(), "deep.pt": _deep(),
        "seven.pt": b"7z\xbc\xaf\x27\x1c" + b"\0" * 20,
    }  # fmt: skip
    yield "harmless", "harmless", {
        "weights.pt": zipped(weights()), "deflated.pt": zipped(weights(), method=8),
        "weights.pkl": weights(), "legacy.pth": legacy(weights()),
        "tensors.safetensors": safetensors(), "header-640.safetensors": safetensors(padding=640),
        "renamed-tensors.pt": safetensors(), "numbers.npy": array(b"\0" * 8, "'<f8'"),
        "fields.npy": array(b"\0" * 8, "[('Offset', '<f8')]"),
        "two.npy": array(b"\0" * 8, "'<f8'") + array(b"\0" * 12, "'<U3'"),
        "numbers.npz": zipped(array(b"\0" * 8, "'<f8'"), "x.npy"), "model.gguf": gguf(),
        "tokens.bin": b"\x01\x02\x03 of some other program", "letters.txt":
            b"costs are high\nthey say\n", "picture.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        "archive.tar.gz": gzip.compress(tarred(**{"readme.md": b"text"})),
        "sheet.xlsx": zipped(b"<xml/>", "xl/workbook.xml"), "Copyright": b"Copyright (c) 2026\n",
        "paths.pth": b"import sys; sys.path\n../src\n", "python-2.npy":
            array(b"\0" * 8, "'<f8'").replace(b"(1,), }  ", b"(1L,), } "),
        "weights.pt.gz": gzip.compress(zipped(weights())),
    }  # fmt: skip


def _duplicated() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", call())
        archive.infolist()[0].filename = "archive/data.txt"
        archive.NameToInfo.clear()
        archive.writestr("archive/data.pkl", weights())
        archive.infolist()[0].filename = "archive/data.pkl"
    return stream.getvalue()


def _comment() -> bytes:
    """An end record within the comment of another: which of both counts?"""
    good = zipped(weights())
    bad = zipped(call())
    end = good.index(b"PK\x05\x06")
    comment = bad[bad.index(b"PK\x01\x02") :]
    return good[:end] + good[end : end + 20] + struct.pack("<H", len(comment)) + comment


def _safetensors_and_pickle() -> bytes:
    """A whole safetensors file that, as a pickle, skips its header as two strings, and calls."""
    # Its first byte is an opcode for a string, whose length the next four bytes are.
    inside = 40
    length = ord("X") | inside << 8
    data = b"\n0" + call(protocol=0)
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"a": "#"}, "w": entry})
    # There the string ends, and a line begins that goes on to the first tensor.
    header = header.replace("#", "x" * (inside - 3 - header.index("#")) + "0V")
    return struct.pack("<Q", length) + header.encode().ljust(length) + data


def _deep() -> bytes:
    content = weights()
    for name in ("a.pkl", "b.pt", "c.pt", "d.pt", "e.pt", "f.pt"):
        content = zipped(content, name)
    return content
