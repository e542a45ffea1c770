"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import cloudpickle
import dill
import json
from dill import loads as undill

# ruleid: unsafe-deserialization-cloudpickle
cloudpickle.load(stream)
# ruleid: unsafe-deserialization-cloudpickle
cloudpickle.loads(data)
# ruleid: unsafe-deserialization-cloudpickle
dill.load(stream)
# ruleid: unsafe-deserialization-cloudpickle
undill(data)
# ruleid: unsafe-deserialization-cloudpickle
dill.load_session("session.pkl")
# ok: unsafe-deserialization-cloudpickle
dill.dumps(value)
# ok: unsafe-deserialization-cloudpickle
json.loads(data)
