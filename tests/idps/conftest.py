"""examples/idps as a user has it, over an identity provider that signs each vendor's shapes with a key of its own.

`shapes/<name>.yaml` has a vendor's token (`header`, `claims`), its key's own members (`jwk`), what the internal token
then holds (`minted`), other shapes that pass (`also`), and what is refused and why (`refused`). `null` takes a member
away; `now+60` is a time.
"""

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from harness import SECRET, Idp, Key, Service

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples" / "idps"
KEY_SOURCES = ("discovery", "jwks_uri", "jwks_file", "ca_file")


def in_time(value, now):
    if isinstance(value, dict):
        return {name: in_time(member, now) for name, member in value.items()}
    found = re.fullmatch(r"now([+-]\d+)", value) if isinstance(value, str) else None
    return now + int(found[1]) if found else value


def merged(base, changes):
    return {name: value for name, value in {**base, **(changes or {})}.items() if value is not None}


class Vendor:
    """A vendor's token shapes, and the key that signs them."""

    def __init__(self, name, encryption):
        self.name = name
        self.shapes = yaml.safe_load((HERE / "shapes" / f"{name}.yaml").read_text(encoding="utf-8"))
        self.token_type = f"urn:ietf:params:oauth:token-type:{self.shapes.get('token_type', 'access_token')}"
        self.key = Key(self.shapes["header"]["kid"])
        jwk = merged(self.key.jwk, self.shapes["jwk"])
        self.jwks = {"keys": [encryption, jwk]}

    def minted(self, now):
        return in_time(self.shapes["minted"], now)

    def token(self, now, case=None, key=None):
        """A token of the vendor's shape with the changes of a case."""
        case = case or {}
        claims = merged(in_time(self.shapes["claims"], now), in_time(case.get("claims", {}), now))
        header = merged({"typ": None, **self.shapes["header"]}, case.get("header"))
        signed = merged(header, case.get("signed_header"))
        token = (key or self.key).sign(claims, {"typ": None, **signed})
        if signed == header:
            return token
        head = (key or self.key).sign(claims, {"typ": None, **header}).partition(".")[0]
        return f"{head}.{token.partition('.')[2]}"


@pytest.fixture(scope="session")
def vendors():
    """All vendors by name."""
    # as Keycloak publishes one beside its signing keys
    encryption = {**Key("an-encryption-key").jwk, "use": "enc", "alg": "RSA-OAEP"}
    return {file.stem: Vendor(file.stem, encryption) for file in sorted((HERE / "shapes").glob("*.yaml"))}


@pytest.fixture(scope="session")
def provider(vendors):
    """Each vendor's keys, over HTTP at /<name>."""
    serving = Idp()
    serving.answer = lambda handler: handler.reply(json.dumps(vendors[handler.path[1:]].jwks).encode())
    yield serving
    serving.close()


@pytest.fixture(scope="session")
def service(provider, tmp_path_factory):
    """`sts serve` on examples/idps/sts.yaml; only the client's secret and where keys are found differ."""
    directory = tmp_path_factory.mktemp("idps")
    for file in EXAMPLES.glob("*.yaml"):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, source in document.get("sources", {}).items():
            for key in KEY_SOURCES:
                source.pop(key, None)
            source["jwks_uri"] = f"http://127.0.0.1:{provider.port}/{name}"
        if file.stem == "sts":
            digest = "346166fccc2baaf9c0e989c00ad085a5c32aefc1e2a61d97d4058388450240ad"
            assert SECRET == "edge-gateway-secret-for-tests-only"
            document["clients"]["edge-gateway"]["secrets"] = [f"sha256:{digest}"]
        (directory / file.name).write_text(yaml.safe_dump(document), encoding="utf-8")
    running = Service(directory, (directory / "sts.yaml").read_text(encoding="utf-8"))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="session")
def now():
    """One time for the shapes of the whole run."""
    return int(time.time())
