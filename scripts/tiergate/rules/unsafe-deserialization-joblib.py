"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import joblib
from joblib import load
import json

# ruleid: unsafe-deserialization-joblib
joblib.load("model.joblib")
# ruleid: unsafe-deserialization-joblib
load("model.joblib", mmap_mode="r")
# ok: unsafe-deserialization-joblib
joblib.dump(model, "model.joblib")
# ok: unsafe-deserialization-joblib
json.load(stream)
