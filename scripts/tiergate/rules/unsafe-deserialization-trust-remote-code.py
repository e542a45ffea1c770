"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

from transformers import AutoModel, pipeline

# ruleid: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained(name, trust_remote_code=True)
# ruleid: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained("owner/model", trust_remote_code=True)
# ruleid: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained(name, trust_remote_code=arguments.trust)
# ruleid: unsafe-deserialization-trust-remote-code
pipeline("text-generation", model=name, trust_remote_code=True)
# ok: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained(name)
# ok: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained(name, trust_remote_code=False)
# ok: unsafe-deserialization-trust-remote-code
AutoModel.from_pretrained("owner/model", trust_remote_code=True, revision="0123456789abcdef0123456789abcdef01234567")
