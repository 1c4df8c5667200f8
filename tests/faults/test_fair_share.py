"""One caller that sends many requests at once, all of which have to wait, takes no place away from the others."""

import json
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from harness import ACCESS_TOKEN, CLIENT, GRANT, ISSUER, Idp, Service, minimal
from jwt.algorithms import ECAlgorithm
from opaque import AS_ISSUER, Bent, source

from sts.clients.assertion import ASSERTION_TYPE

GREEDY, OTHERS = 24, 41
TAKES_S = 0.1
"""How long the server takes for an answer."""


def slowly(handler):
    """Say that tokens which begin with `bent_good` are active."""
    time.sleep(TAKES_S)
    token = dict(urllib.parse.parse_qsl(handler.body.decode()))["token"]
    if not token.startswith("bent_good"):
        handler.reply({"active": False})
        return
    said = {"active": True, "sub": token, "aud": "api-gateway", "scope": "orders:read", "iss": AS_ISSUER}
    handler.reply({**said, "exp": int(time.time()) + 600})


class Signer:
    """A client that signs its assertions."""

    def __init__(self, name, folder):
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())
        public = {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": name}
        self.file = folder / f"{name}.json"
        self.file.write_text(json.dumps({"keys": [public]}))

    def settings(self):
        given = {"auth": "private_key_jwt", "jwks_file": str(self.file), "audiences": ["*"], "sources": ["*"]}
        return {**given, "networks": ["127.0.0.0/8"]}

    def exchange(self, service, token):
        now = int(time.time())
        claims = {"iss": self.name, "sub": self.name, "aud": ISSUER, "exp": now + 60, "jti": f"{time.monotonic_ns()}"}
        assertion = jwt.encode({**claims, "jti": claims["jti"] + token}, self.key, "ES256", {"kid": self.name})
        form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
        form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        body = urllib.parse.urlencode(form).encode()
        return service.request("POST", "/token", {"Content-Type": "application/x-www-form-urlencoded"}, body)


class World:
    def __init__(self, folder):
        self.idp, self.bent = Idp(), Bent()
        self.bent.answer = slowly
        self.greedy, self.modest = Signer("greedy", folder), Signer("modest", folder)
        document = yaml.safe_load(minimal(self.idp))
        document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
        document["sources"]["bent"] = source(self.bent, match={"prefix": "bent_"})
        document["clients"][CLIENT]["sources"] = ["*"]
        document["clients"] |= {one.name: one.settings() for one in (self.greedy, self.modest)}
        document["workers"] = 1
        self.service = Service(folder, json.dumps(document))
        self.count = 0

    def close(self):
        assert self.service.stop() == 0, self.service.log()
        self.idp.close()
        self.bent.close()

    def crowded(self, attack, asks, at_once):
        """Statuses of `asks` while `attack(token)` goes on with made-up tokens in GREEDY threads."""
        over, made_up = threading.Event(), iter(range(10**9))

        def keep_on():
            while not over.is_set():
                attack(f"bent_bad_{next(made_up)}")

        with ThreadPoolExecutor(GREEDY) as attackers, ThreadPoolExecutor(at_once) as pool:
            going = [attackers.submit(keep_on) for _ in range(GREEDY)]
            time.sleep(3 * TAKES_S)  # the attack is in full swing
            try:
                return [one.result().status for one in [pool.submit(ask) for ask in asks]]
            finally:
                over.set()
                for one in going:
                    one.result()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def test_one_user_with_made_up_opaque_tokens_takes_no_place_away_from_others(world):
    """FA-10. The gateway says whose requests they are."""
    attack = partial(world.service.forward, X_Original_Addr="203.0.113.66")
    asks = [
        partial(world.service.forward, f"bent_good_{number}", X_Original_Addr=f"198.51.100.{number}")
        for number in range(OTHERS)
    ]
    assert world.crowded(attack, asks, OTHERS) == [200] * OTHERS


def test_one_client_with_made_up_opaque_tokens_takes_no_place_away_from_another(world):
    """FA-10."""
    attack = partial(world.greedy.exchange, world.service)
    asks = [partial(world.modest.exchange, world.service, f"bent_good_{number}") for number in range(OTHERS)]
    assert world.crowded(attack, asks, 6) == [200] * OTHERS
