"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import functools
import torch
import torch as t
import torch.serialization
from torch import load
from torch import load as read
from torch.serialization import load as deserialize

path = "model.pt"

# ruleid: unsafe-torch-load
torch.load(path)
# ruleid: unsafe-torch-load
torch.load(path, map_location="cpu")
# ruleid: unsafe-torch-load
torch.load(path, weights_only=False)
# ruleid: unsafe-torch-load
torch.load(path, weights_only=None)
flag = True
# ruleid: unsafe-torch-load
torch.load(path, weights_only=flag)
options = {"weights_only": True}
# ruleid: unsafe-torch-load
torch.load(path, **options)
# ruleid: unsafe-torch-load
t.load(path)
# ruleid: unsafe-torch-load
load(path)
# ruleid: unsafe-torch-load
read(path)
# ruleid: unsafe-torch-load
deserialize(path)
# ruleid: unsafe-torch-load
torch.serialization.load(path)
# ruleid: unsafe-torch-load
torch.load(
    path,
    map_location="cpu",
)
# ruleid: unsafe-torch-load
loader = torch.load
# ruleid: unsafe-torch-load
partial = functools.partial(torch.load, weights_only=True)
# ruleid: unsafe-torch-load
models = list(map(torch.load, [path]))
# ruleid: unsafe-torch-load
named = getattr(torch, "load")
# ruleid: unsafe-torch-load
torch.load(path, weights_only=True, pickle_module=evil)
# ruleid: unsafe-torch-load
torch.load(torch.load(path), weights_only=True)
# ruleid: unsafe-torch-load
torch.load(path)  # nosemgrep


def default(loader=None):
    # ruleid: unsafe-torch-load
    return (loader or torch.load)(path)


# ok: unsafe-torch-load
torch.load(path, weights_only=True)
# ok: unsafe-torch-load
t.load(path, map_location="cpu", weights_only=True)
# ok: unsafe-torch-load
read(path, weights_only=True)
# ok: unsafe-torch-load
torch.serialization.load(path, weights_only=True)
# ok: unsafe-torch-load
torch.load(
    path,
    weights_only=True,
)
# ok: unsafe-torch-load
model.load_state_dict(torch.load(path, weights_only=True))
# ok: unsafe-torch-load
torch.save(model, path)
# ok: unsafe-torch-load
text = "torch.load(path)"
# ok: unsafe-torch-load
json.load(path)
# torch.load(path) in a comment
# ruleid: unsafe-torch-load
torch.serialization.load(path, weights_only=not False)
# ruleid: unsafe-torch-load
loaders = [torch.load, torch.save]


class Loader:
    # ruleid: unsafe-torch-load
    read = staticmethod(torch.load)

    # ruleid: unsafe-torch-load
    def get(self, f=torch.load):
        return f(path)


# ruleid: unsafe-torch-load
first = lambda p: torch.load(p)
# ruleid: unsafe-torch-load
states = [torch.load(p) for p in paths]


def local():
    import torch as q

    # ruleid: unsafe-torch-load
    return q.load(path)


# ruleid: unsafe-torch-load
torch.load(path, None, pickle, weights_only=True)
# ruleid: unsafe-torch-load
f"{torch.load(path)}"


async def co():
    # ruleid: unsafe-torch-load
    return await asyncio.to_thread(torch.load, path, weights_only=True)


# ok: unsafe-torch-load
torch.load(path, "cpu", weights_only=True)
# ok: unsafe-torch-load
torch.load(path, map_location="cpu", mmap=True, weights_only=True)
# ok: unsafe-torch-load
torch.load(path, weights_only=True, map_location="cpu", mmap=True)
# ok: unsafe-torch-load
torch.load(f=path, map_location="cpu", mmap=True, weights_only=True)
