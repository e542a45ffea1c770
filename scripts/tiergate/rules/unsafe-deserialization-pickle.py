"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import pickle
import pickle as pkl
import shelve
import json
from pickle import loads, Unpickler

# ruleid: unsafe-deserialization-pickle
pickle.load(stream)
# ruleid: unsafe-deserialization-pickle
pkl.loads(data)
# ruleid: unsafe-deserialization-pickle
loads(data)
# ruleid: unsafe-deserialization-pickle
Unpickler(stream).load()
# ruleid: unsafe-deserialization-pickle
read = pickle.load


# ruleid: unsafe-deserialization-pickle
class Redirecting(pickle._Unpickler):
    pass


# ruleid: unsafe-deserialization-pickle
class Restricted(Unpickler):
    pass


# ruleid: unsafe-deserialization-pickle
states = list(map(pickle.loads, blobs))
# ruleid: unsafe-deserialization-pickle
shelve.open("cache")
# ok: unsafe-deserialization-pickle
pickle.dump(value, stream)
# ok: unsafe-deserialization-pickle
json.load(stream)
# ok: unsafe-deserialization-pickle
text = "pickle.load(stream)"
