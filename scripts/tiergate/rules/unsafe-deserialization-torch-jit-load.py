"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import torch

# ruleid: unsafe-deserialization-torch-jit-load
torch.jit.load(path)
# ruleid: unsafe-deserialization-torch-jit-load
torch.jit.load(f=arguments.model, map_location="cpu")
# ruleid: unsafe-deserialization-torch-jit-load
torch.jit.load(str(folder / "model.pt"))
# ok: unsafe-deserialization-torch-jit-load
torch.jit.load("assets/model.pt")
# ok: unsafe-deserialization-torch-jit-load
torch.jit.script(model)
