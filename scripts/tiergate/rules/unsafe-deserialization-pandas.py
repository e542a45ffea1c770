"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import pandas as pd
from pandas import read_pickle

# ruleid: unsafe-deserialization-pandas
pd.read_pickle("frame.pkl")
# ruleid: unsafe-deserialization-pandas
read_pickle("frame.pkl")
# ok: unsafe-deserialization-pandas
pd.read_parquet("frame.parquet")
# ok: unsafe-deserialization-pandas
frame.to_pickle("frame.pkl")
