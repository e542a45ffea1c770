"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import yaml
from yaml import SafeLoader, load

# ruleid: unsafe-deserialization-yaml
yaml.load(stream)
# ruleid: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.Loader)
# ruleid: unsafe-deserialization-yaml
yaml.load(stream, yaml.UnsafeLoader)
# ruleid: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.FullLoader)
# ruleid: unsafe-deserialization-yaml
yaml.load(stream, Loader=loader)
# ruleid: unsafe-deserialization-yaml
yaml.unsafe_load(stream)
# ruleid: unsafe-deserialization-yaml
yaml.full_load(stream)
# ruleid: unsafe-deserialization-yaml
yaml.load_all(stream, Loader=yaml.Loader)
# ruleid: unsafe-deserialization-yaml
load(stream)
# ok: unsafe-deserialization-yaml
yaml.safe_load(stream)
# ok: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.SafeLoader)
# ok: unsafe-deserialization-yaml
yaml.load(stream, yaml.CSafeLoader)
# ok: unsafe-deserialization-yaml
load(stream, Loader=SafeLoader)
# ok: unsafe-deserialization-yaml
yaml.load_all(stream, Loader=yaml.SafeLoader)
# ok: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.loader.SafeLoader)
# ok: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.CBaseLoader)
# ruleid: unsafe-deserialization-yaml
yaml.load(stream, Loader=yaml.loader.FullLoader)
# ok: unsafe-deserialization-yaml
yaml.dump(value)
