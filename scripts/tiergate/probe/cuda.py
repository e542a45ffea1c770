"""Is there a CUDA device that computes?"""

from __future__ import annotations

import traceback
from typing import Any

from .records import Channel
from .text import clip


def run(job: dict[str, Any], channel: Channel) -> int:
    """Compute an exact product on the device and send the proof, or why there is none."""
    try:
        import torch  # noqa: PLC0415 - the candidate's own, only in this job
    except ImportError as error:
        channel.send("no-device", reason=f"torch cannot be imported: {error}")
        return 1
    build = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}"
    if torch.version.cuda is None:
        channel.send("no-device", reason=f"torch {torch.__version__} is a build without CUDA")
        return 1
    try:
        if not torch.cuda.is_available() or torch.cuda.device_count() < 1:
            channel.send("no-device", reason=build + ": no CUDA device is visible")
            return 1
        # Small integers are exact in float32, whatever the order of the sums.
        left = torch.arange(4096, dtype=torch.float32).reshape(64, 64) % 7
        right = torch.arange(4096, dtype=torch.float32).reshape(64, 64) % 5
        computed = (left.to("cuda") @ right.to("cuda")).cpu()
        if not torch.equal(computed, left @ right):
            channel.send("no-device", reason=build + ": the device computed a wrong product")
            return 1
        major, minor = torch.cuda.get_device_capability(0)
        channel.send(
            "device",
            values={
                "name": torch.cuda.get_device_name(0),
                "capability": f"{major}.{minor}",
                "count": str(torch.cuda.device_count()),
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "result": str(int(computed.sum().item())),
            },
            free=torch.cuda.mem_get_info(0)[0],
        )
    except Exception:  # noqa: BLE001 - a driver fails in many ways; each is the evidence
        reason = clip(traceback.format_exc(limit=3), 2000)
        channel.send("no-device", reason=build + ":\n" + reason)
        return 1
    return 0
