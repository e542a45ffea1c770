"""Whatever bytes there are: a spec or a clean error, soon and in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import ROOT, TWO_LEGS, TWO_TIERS
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate import spec, yaml_document

VALID = [TWO_LEGS, TWO_TIERS, (ROOT / "gate.yaml").read_bytes()]
LIMIT = yaml_document.MAX_BYTES


def load(data: bytes) -> None:
    """Parse; an error must be clean: places within the file, one line each, printable."""
    try:
        spec.parse(data, Path("g.yaml"))
    except spec.SpecError as error:
        problems, lines = error.problems, str(error).splitlines()
    else:
        return
    assert problems
    for problem, line in zip(problems, lines, strict=True):
        assert line.startswith(f"g.yaml:{problem.mark.line}:{problem.mark.column}: ")
        assert line.isprintable()
        assert 1 <= problem.mark.line <= len(data) + 1
        assert 1 <= problem.mark.column <= len(data) + 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    load(data)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text):
    load(text.encode("utf-8", "surrogatepass"))


PIECES = (
    b"&a ", b"*a", b"!!x ", b"[", b"]", b"{", b"}", b"- ", b"? ", b": ", b"\n", b"\n  ", b"|\n",
    b'"', b"'", b"#", b"%YAML 1.1\n", b"---\n", b"...\n", b"\t", b"\0", b"\xff", b"\xe2\x80\xa8",
    b"\xef\xbb\xbf", b"~", b"7", b"1e9", b">=3", b"..", b"/", b"<<: *a", b"\\u0000", b"\r",
    b"criteria", b"tiers:\n", b"devices: [cuda]\n", b"needs: [A, B]",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(VALID),
    st.lists(
        st.tuples(st.integers(0, 2**16), st.integers(0, 30), st.sampled_from(PIECES)),
        min_size=1,
        max_size=4,
    ),
)
def test_a_valid_spec_with_pieces_cut_out_and_put_in(data, changes):
    for at, cut, piece in changes:
        place = at % (len(data) + 1)
        data = data[:place] + piece + data[place + cut :]
    load(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_valid_spec_with_lines_taken_from_another_place(data):
    lines = data.draw(st.sampled_from(VALID)).splitlines(keepends=True)
    picks = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines)))
    load(b"".join(lines[n] for n in picks))


_KEYS = st.sampled_from(
    ["gate", "criteria", "id", "uses", "with", "expect", "devices", "needs", "paths", "run",
     "parameters", "tiers", "remedy", "env", "timeout", "x", "<<"]
)  # fmt: skip
_SCALARS = st.sampled_from(
    ["T", "A", "pytest", "command", "script", "7", "-1", "1.5", "true", "~", ">=1", "cpu", "''",
     "'0'", '"\\t"', "../x", "*a", "*b", "&a 1", "&b [*a]"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        _SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
            st.tuples(st.sampled_from(["", "&a ", "&b "]), st.lists(st.tuples(_KEYS, inner))).map(
                lambda pair: pair[0] + "{" + ", ".join(f"{k}: {v}" for k, v in pair[1]) + "}"
            ),
        ),
        max_leaves=25,
    )
)
def test_generated_yaml_with_anchors_and_the_words_of_a_spec(text):
    load(text.encode())


def _repeated(template: bytes, head: bytes = b"", nodes: int = 0) -> bytes:
    """Return ``head`` and as many numbered copies of a line as fit.

    With ``nodes``, how many a line makes, the file stays below the limit of nodes: it is read to
    the end.
    """
    count = (LIMIT - len(head)) // len(template.replace(b"%", b"000000"))
    if nodes:
        count = min(count, (yaml_document.MAX_NODES - 10) // nodes)
    return head + b"".join(template.replace(b"%", b"%06d" % n) for n in range(count))


def _needs() -> bytes:
    head = b"gate: T\ncriteria:\n"
    run = b"- {id: %s, uses: command, with: {run: [a]}}\n"
    criteria = b"".join(run % (b"x" * 50 + b"%04d" % n) for n in range(1900))
    wanted = b", ".join(b"x" * 40 + b"y" * 15 + b"%d" % n for n in range(120))
    last = b"- {id: y, uses: command, with: {run: [a]}, needs: [" + wanted + b"]}\n"
    return head + criteria + last


def _deep_aliases() -> bytes:
    rows = [b"parameters:\n- &p0 " + b"[" * 18 + b"x" + b"]" * 18]
    rows += [
        b"- &p%d " % n + b"[" * 18 + b"*p%d" % (n - 1) + b"]" * 18 for n in range(1, LIMIT // 60)
    ]
    return b"\n".join(rows)


_HEAD = b"gate: T\ncriteria:\n"
_BAD = b"{" + b", ".join(b"bad%d: 1" % n for n in range(60)) + b"}"
NASTY = {
    "opening brackets": b"[" * LIMIT,
    "opening braces": b"{" * LIMIT,
    "brackets on many lines": b"[\n" * (LIMIT // 2),
    "question marks": b"? " * (LIMIT // 2),
    "dashes": b"- " * (LIMIT // 2),
    "indents": b"".join(b" " * n + b"a:\n" for n in range(720))[:LIMIT],
    "comments": b"# x\n" * (LIMIT // 4),
    "blank lines": b"\n" * LIMIT,
    "spaces": b" " * LIMIT,
    "one long key": b"k" * LIMIT,
    "one long line": b"gate: " + b"x" * (LIMIT - 6),
    "one long quoted text": b'gate: "' + b"\\x41" * (LIMIT // 4 - 3) + b'"',
    "one folded text": b"gate: >\n" + b" x\n" * (LIMIT // 3 - 3),
    "unclosed quote": b"gate: '" + b"x\n" * (LIMIT // 2 - 4),
    "anchors": _repeated(b"- &a% x\n", _HEAD),
    "the same anchor": b"criteria:\n" + b"- &a x\n" * (LIMIT // 7 - 2),
    "aliases of a long list": b"a: &a [x, x]\n" + b"k: *a\n" * (LIMIT // 6 - 3),
    "aliases that explode": b"a0: &a0 x\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b"*a%d, " % (n - 1) * 9) for n in range(1, 3000))[
        : LIMIT - 10
    ],
    "aliases that nest": _deep_aliases(),
    "aliases with unknown keys": _HEAD + b"- &x " + _BAD + b"\n" + b"- *x\n" * 150,
    "aliases with a long unknown key": _HEAD + b"- &x\n  ? " + b"k" * 200_000 + b"\n  : 1\n"
    + b"- *x\n" * 6000,
    "aliases with a long text": _HEAD + b"- &x\n  id: " + b"k" * 200_000 + b"\n" + b"- *x\n" * 6000,
    "too many keys": _repeated(b"k%: 1\n"),
    "unknown keys": _repeated(b"k%: 1\n", nodes=2),
    "duplicate keys": _repeated(b"gate: 1\n", nodes=2),
    "duplicate ids": _repeated(b"- {id: a, uses: command, with: {run: [a]}}\n", _HEAD, nodes=9),
    "unknown checkers": _repeated(b"- {id: a%, uses: z%}\n", _HEAD, nodes=5),
    "unknown rules": _repeated(
        b"- {id: a%, uses: semgrep, with: {paths: [a], rules: [r%]}}\n", _HEAD, nodes=12
    ),
    "unknown outcomes": _repeated(
        b"- {id: a%, uses: pytest, with: {paths: [a]}, expect: {o%: 1}}\n", _HEAD, nodes=13
    ),
    "unknown words in aliases": _HEAD + b"- &x {id: a, uses: comand}\n" + b"- *x\n" * 3900,
    "many valid criteria": _repeated(
        b"- {id: a%, uses: command, with: {run: [a]}}\n", _HEAD, nodes=10
    ),
    "unknown needs": _needs(),
    "names listed twice": _HEAD + b"- {id: a, uses: imports, with: {module: m, names: ["
    + b"n, " * 19_000 + b"]}}\n",
    "needs listed twice": _HEAD + b"- {id: a, uses: command, with: {run: [a]}, needs: ["
    + b", ".join(b"n%d" % n for n in range(19_000)) + b"]}\n",
    "tag directives": b"".join(b"%%TAG !a%d! b\n" % n for n in range(15_000)) + b"--- a\n",
    "documents": b"---\n" * (LIMIT // 4),
    "bytes that are no text": b"\xff" * LIMIT,
    "wide characters": "\U0001f600".encode() * (LIMIT // 4),
    "zero bytes": b"\0" * LIMIT,
    "a file that is too large": b"a" * (LIMIT * 40),
}  # fmt: skip

_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from tiergate import spec
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
spec.parse(b"gate: T\\ncriteria: [{id: A, uses: command, with: {run: [a]}}]", Path("g"))
size = int(sys.stdin.buffer.readline())
data = sys.stdin.buffer.read(size)
used = time.process_time()
resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 3, int(used) + 3))
try:
    spec.parse(data, Path("g.yaml"))
    result = "spec"
except spec.SpecError as error:
    result = "error"
print(json.dumps({
    "result": result,
    "seconds": time.process_time() - used,
    "peak_kib": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]),
}))
"""


def measure(data: bytes) -> dict[str, float | str]:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input=b"%d\n" % len(data) + data,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NASTY)
def test_the_worst_files_end_within_the_limits_of_time_and_memory(name):
    """The process is killed at 400 MB of address space, or after three seconds of CPU time."""
    measured = measure(NASTY[name])
    assert measured["result"] == ("spec" if name == "many valid criteria" else "error")
    assert measured["peak_kib"] < 200 * 1024
