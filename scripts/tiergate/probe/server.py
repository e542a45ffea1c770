"""A warm interpreter: imports what is slow to import once, then forks a child for each job.

The judge speaks through a socket: one message per job, with the descriptors that the child gets.
The child becomes what a fresh process would be: a session of its own, its own descriptors and
nobody else's, its own working directory, its own mark in the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from .ahead import Ahead
from .beside import Beside
from .rewritten import Rewritten

_MARK = "TIERGATE_PROCESS_MARK"
_MESSAGE = 1024 * 1024


def next_job(descriptor: int, ahead: Ahead) -> int:
    """Serve until the judge hangs up; return, in each child, the descriptor of its records.

    In the child the job is on standard input, as in a process that was started for it alone.

    Args:
        descriptor: of the socket to the judge.
        ahead: keeps what a fresh process would not have imported yet.
    """
    control = socket.socket(fileno=descriptor)
    _set_mark(os.environ[_MARK])  # on itself: where that is refused, no child could be known
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    own = {descriptor, wake, woken}
    rewritten = Rewritten()
    children: dict[int, int] = {}
    helpers: dict[int, int] = {}
    while True:
        ready = select.select([descriptor, wake], [], [])[0]
        if wake in ready:
            os.read(wake, _MESSAGE)
            _reap(children, helpers)
        if descriptor not in ready:
            continue
        message, given, _, _ = socket.recv_fds(control, _MESSAGE, 5)
        if not message:
            _abandon(children, helpers.values())
        told = json.loads(message)
        if "modules" in told:
            _import(told["modules"], ahead)
            rewritten.compile(told["rewritten"])
            gc.collect()
            gc.freeze()
            control.send(json.dumps(ahead.top_level()).encode())
            continue
        *streams, status = given
        beside = _beside(told["test-files"])
        pid = _fork(status)
        if pid == 0:
            control.detach()
            _become(told, streams, status, own | set(children.values()))
            _forget(ahead, rewritten, beside)
            return streams[3]
        for number in streams:
            os.close(number)
        if pid is None:
            os.close(status)
            continue
        children[pid] = status
        if beside is not None:
            with contextlib.suppress(OSError):  # no more processes: the session does all itself
                helpers[pid] = beside.work({*own, *children.values()})


def _import(modules: list[str], ahead: Ahead) -> None:
    """Import more ahead of time; what cannot be forked afterwards ends this interpreter."""
    # What modules are made of stays: to look for garbage among it again and again is a sixth of
    # an import of torch. The caller collects once, at the end.
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    ahead.load(modules)
    if gc.get_threshold()[0] == 0:  # unless a module chose others
        gc.set_threshold(*thresholds)
    if threading.active_count() > 1:
        raise RuntimeError("a thread was started while modules were imported ahead of time")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError("CUDA was initialised while modules were imported ahead of time")


def _beside(files: list[str]) -> Beside | None:
    """Return what a session shares with the process that rewrites its test files."""
    if not files or not hasattr(sys.modules.get("_pytest.assertion.rewrite"), "_rewrite_test"):
        return None
    try:
        return Beside(files)
    except OSError:
        return None  # not so much memory: the session does all itself


def _fork(status: int) -> int | None:
    try:
        with warnings.catch_warnings():
            # Numerical libraries start threads when they are imported, and handle a fork.
            warnings.simplefilter("ignore")
            return os.fork()
    except OSError as error:
        os.write(status, f"refused {error.strerror}\n".encode())
        return None


def _become(message: dict[str, Any], streams: list[int], status: int, foreign: set[int]) -> None:
    """Make this child what a fresh process would be."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.write(status, f"pid {os.getpid()}\n".encode())
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
    for number in {*foreign, *streams[:3], status}:
        os.close(number)
    _set_mark(message["mark"])
    os.chdir(message["cwd"])


def _forget(ahead: Ahead, rewritten: Rewritten, beside: Beside | None) -> None:
    """Make this child know no more than a fresh process."""
    ahead.hide()
    if (numpy_random := ahead.get("numpy.random")) is not None:
        numpy_random.seed()  # or every child would draw the same numbers
    if (rewrite := ahead.get("_pytest.assertion.rewrite")) is not None:
        rewritten.offer(rewrite)
        if beside is not None:
            beside.offer(rewrite)


def leave() -> NoReturn:
    """End a child as the interpreter ends, but leave the memory to the kernel.

    To tear all the modules down one by one would copy the pages that are shared with the parent.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as the interpreter calls it
    atexit._run_exitfuncs()  # noqa: SLF001 - as above
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _set_mark(mark: str) -> None:
    """Change the mark in this process's own environment, where the judge reads it.

    The kernel shows the memory in which the environment stood when the program was started.
    """
    shown = Path("/proc/self/environ").read_bytes()
    at = shown.index(f"{_MARK}=".encode()) + len(_MARK) + 1
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    memory = os.open("/proc/self/mem", os.O_RDWR)
    try:
        os.pwrite(memory, mark.encode(), int(fields[47]) + at)
    finally:
        os.close(memory)
    if f"{_MARK}={mark}".encode() not in Path("/proc/self/environ").read_bytes():
        raise RuntimeError("the mark in the environment cannot be changed")
    os.environ[_MARK] = mark


def _reap(children: dict[int, int], helpers: dict[int, int]) -> None:
    """Tell how each child ended that has; end the process beside it.

    Args:
        children: → the descriptor to tell it through.
        helpers: child → the process beside it.
    """
    while children or helpers:
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            status = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # the judge has stopped listening
                os.write(status, f"exit {os.waitstatus_to_exitcode(code)}\n".encode())
            os.close(status)
            if pid in helpers:
                os.kill(helpers[pid], signal.SIGKILL)  # a zombie at the least: not reaped yet
        else:
            for child in [child for child, helper in helpers.items() if helper == pid]:
                del helpers[child]


def _abandon(children: Collection[int], helpers: Collection[int]) -> NoReturn:
    """End with the judge: nobody is left to whom a child could report."""
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):  # it had ended
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)
