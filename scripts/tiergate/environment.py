"""The environment variables that candidate code gets: the same on a laptop and in CI."""

from __future__ import annotations

import os
from collections.abc import Mapping

# What a program needs to find itself, its files and its devices. All else is left behind: pytest
# options and Python switches that change what runs, tokens, and the files through which a
# workflow's steps speak to GitHub.
_PASSED = frozenset(
    {
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_VISIBLE_DEVICES",
        "CURL_CA_BUNDLE",
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_VISIBLE_DEVICES",
        "PATH",
        "REQUESTS_CA_BUNDLE",
        "SHELL",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TEMP",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "XDG_CACHE_HOME",
    }
)
_PASSED_PREFIXES = ("LC_",)
_CI = ("CI", "GITHUB_ACTIONS")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def candidate_environment(
    caller: Mapping[str, str],
    *,
    device: str,
    threads: int,
    set_: Mapping[str, str],
    passed: tuple[str, ...] = (),
) -> dict[str, str]:
    """Return the whole environment of a candidate's process.

    Args:
        caller: the judge's own environment.
        device: the device that is judged, told as ``TIERGATE_DEVICE``.
        threads: how many threads numerical libraries may use.
        set_: variables of the spec; they win.
        passed: names of the spec's ``pass-env``.
    """
    environment = {
        name: value
        for name, value in caller.items()
        if name in _PASSED or name in passed or name.startswith(_PASSED_PREFIXES)
    }
    environment.update(dict.fromkeys(_THREADS, str(threads)))
    environment["TIERGATE_DEVICE"] = device
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment.update(set_)
    return environment


def in_ci(environment: Mapping[str, str]) -> bool:
    """Tell whether an environment is that of a continuous integration system."""
    return any(environment.get(name, "").lower() not in {"", "0", "false"} for name in _CI)


def usable_cpus() -> int:
    """Return how many processors this process may use, control group limits included."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as stream:  # noqa: PTH123
            quota, period = stream.read().split()
    except (OSError, ValueError):
        return cpus
    if quota == "max":
        return cpus
    return max(1, min(cpus, -(-int(quota) // int(period))))
