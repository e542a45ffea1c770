"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import numpy
import numpy as np

# ruleid: unsafe-deserialization-numpy
np.load("a.npy", allow_pickle=True)
# ruleid: unsafe-deserialization-numpy
numpy.load(file="a.npy", allow_pickle=True)
# ruleid: unsafe-deserialization-numpy
np.load("a.npy", None, True)
# ruleid: unsafe-deserialization-numpy
np.load("a.npy", allow_pickle=allowed)
# ruleid: unsafe-deserialization-numpy
np.load("a.npy", **options)
# ok: unsafe-deserialization-numpy
np.load("a.npy")
# ok: unsafe-deserialization-numpy
np.load("a.npy", allow_pickle=False)
# ok: unsafe-deserialization-numpy
np.load("a.npy", mmap_mode="r")
# ok: unsafe-deserialization-numpy
np.save("a.npy", array, allow_pickle=True)
