"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import torch
from torch import hub

# ruleid: unsafe-deserialization-torch-hub-load
torch.hub.load("pytorch/vision", "resnet50")
# ruleid: unsafe-deserialization-torch-hub-load
torch.hub.load("pytorch/vision:v0.10.0", "resnet50")
# ruleid: unsafe-deserialization-torch-hub-load
hub.load(repository, "resnet50", trust_repo=True)
# ok: unsafe-deserialization-torch-hub-load
torch.hub.load("pytorch/vision:0123456789abcdef0123456789abcdef01234567", "resnet50")
# ok: unsafe-deserialization-torch-hub-load
torch.hub.load("vendored/vision", "resnet50", source="local")
# ok: unsafe-deserialization-torch-hub-load
torch.hub.get_dir()
