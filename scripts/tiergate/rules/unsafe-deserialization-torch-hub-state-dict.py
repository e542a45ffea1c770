"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import torch
from torch.hub import load_state_dict_from_url
from torch.utils import model_zoo

flag = True
# ruleid: unsafe-deserialization-torch-hub-state-dict
torch.hub.load_state_dict_from_url(url)
# ruleid: unsafe-deserialization-torch-hub-state-dict
load_state_dict_from_url(url, progress=False)
# ruleid: unsafe-deserialization-torch-hub-state-dict
model_zoo.load_url(url)
# ruleid: unsafe-deserialization-torch-hub-state-dict
torch.hub.load_state_dict_from_url(url, weights_only=False)
# ruleid: unsafe-deserialization-torch-hub-state-dict
torch.hub.load_state_dict_from_url(url, weights_only=flag)
# ruleid: unsafe-deserialization-torch-hub-state-dict
fetch = torch.hub.load_state_dict_from_url
# ok: unsafe-deserialization-torch-hub-state-dict
torch.hub.load_state_dict_from_url(url, weights_only=True)
# ok: unsafe-deserialization-torch-hub-state-dict
model_zoo.load_url(url, weights_only=True)
# ok: unsafe-deserialization-torch-hub-state-dict
torch.hub.download_url_to_file(url, "file")
