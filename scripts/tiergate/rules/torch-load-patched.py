"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import builtins
import os
import subprocess
from unittest import mock
from unittest.mock import patch

import torch

# ruleid: torch-load-patched
torch.load = replacement
# ruleid: torch-load-patched
torch.serialization.load = replacement
# ruleid: torch-load-patched
setattr(torch, "load", replacement)
# ruleid: torch-load-patched
monkeypatch.setattr(torch, "load", replacement)
# ruleid: torch-load-patched
monkeypatch.setattr("torch.load", replacement)


# ruleid: torch-load-patched
@patch("torch.load")
def patched(load):
    # ruleid: torch-load-patched
    with mock.patch.object(torch, "load"):
        pass


# ruleid: torch-load-patched
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
# ruleid: torch-load-patched
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
# ruleid: torch-load-patched
environment = {"PATH": path, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
# ruleid: torch-load-patched
monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
# ruleid: torch-load-patched
torch.serialization.add_safe_globals([os.system])
# ruleid: torch-load-patched
torch.serialization.add_safe_globals([Config, builtins.eval])
# ruleid: torch-load-patched
torch.serialization.add_safe_globals([getattr])
# ok: torch-load-patched
torch.serialization.add_safe_globals([Config])
# ok: torch-load-patched
torch.serialization.add_safe_globals([Config, *[getattr(numpy.dtypes, name) for name in names]])
# ruleid: torch-load-patched
torch.serialization.safe_globals([Config, importlib.import_module])
# ok: torch-load-patched
torch.load(path, weights_only=True)
# ok: torch-load-patched
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
# ok: torch-load-patched
loader.load = replacement
