"""A key proves the tokens of its own issuer and no others, and only if it was published for that (RFC 8725 §3.8)."""

import json
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from harness import Key, b64, wait_for
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sts.trust.remote_jwks import COOL_DOWN


@pytest.mark.parametrize("name", ["rsa", "ec"])
def test_the_key_of_one_issuer_does_not_sign_for_another(world, name):
    """JW-20, lesson 2.11 (CVE-2026-49998: keys kept by `kid` alone): both issuers call their keys alike."""
    first, second = world.first, world.second
    assert getattr(first, name).kid == getattr(second, name).kid
    for own, other in ((first, second), (second, first)):
        token = getattr(own, name).sign(own.claims())
        world.doors.accept(token)
        stolen = getattr(own, name).sign(other.claims())
        world.doors.refuse(stolen, "bad_signature")
        world.doors.refuse(getattr(own, name).sign(other.claims(), {"kid": None}), "bad_signature")


def test_a_key_that_only_another_issuer_has_is_unknown(world):
    """JW-20, lesson 2.11."""
    token = world.more["ES384"].sign({**world.first.claims(), "iss": world.second.issuer}, {"kid": "es384"})
    world.doors.refuse(token, "bad_algorithm")
    own = Key("es384", "ES256")
    world.doors.refuse(own.sign(world.second.claims()), "unknown_key")


SPELLINGS = (
    *("https://first.example/", "https://first.example//", "https://first.example/.", "https://first.example/x"),
    *("HTTPS://first.example", "https://FIRST.example", "https://first.example.", "https://first.example:443"),
    *("http://first.example", "first.example", "//first.example", "https://first.exampl", "https://first.example2"),
    *("https://first.example#", "https://first.example?", "https://first.example?x", "https://u@first.example"),
    *(
        "https://first%2eexample",
        "https://fir\u017ft.example",
        "https://f\u0456rst.example",
        "https://xn--first.example",
    ),
    *(" https://first.example", "https://first.example ", "https://first.example\n", "https://first.example\t"),
    *("https://evil.example/?https://first.example", "https://first.example@evil.example", "https://*.example"),
    *("https://first.example.evil.example", "https://evilfirst.example", "first", "", "*", ".*", "https://.*"),
    *("javascript:alert(1)", "file:///etc/passwd", "https://first.example,https://second.example"),
)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=repr)
def test_an_issuer_is_compared_byte_for_byte_and_nothing_is_fetched_for_another(world, spelling):
    """AT-09, lesson 2.8 (CVE-2026-22772 Fulcio: an unanchored pattern; CVE-2025-52477 octo-sts)."""
    before = [one.fetches for one in (world.first, world.second, world.odd)]
    world.doors.refuse(world.first.token(iss=spelling), "unknown_issuer")
    assert [one.fetches for one in (world.first, world.second, world.odd)] == before


def test_no_address_is_visited_that_a_token_names_as_its_issuer(world, trap):
    """JW-23, lesson 2.8 (CVE-2025-52477 octo-sts, CVE-2026-4874 Keycloak: a request on behalf of an unproven `iss`)."""
    for iss in (trap.url, f"{trap.url}/", f"{trap.url}/realms/x", "http://169.254.169.254/latest/meta-data"):
        world.doors.refuse(world.first.token(iss=iss), "unknown_issuer")
    assert trap.connections == 0


@pytest.mark.parametrize("iss", [["https://first.example"], {"iss": "https://first.example"}, 1, True], ids=repr)
def test_an_issuer_that_is_no_text_is_refused(world, iss):
    world.doors.refuse(world.first.token(iss=iss), "malformed")


def rs256(private, text):
    return private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())


def small_exponent(modulus_of):
    """A key with e = 1: its "signature" is the padded hash itself, which anybody can write."""
    return {**modulus_of, "e": "AQ"}


def cabinet(key, small, curve):
    """JWKs that prove nothing, by what is wrong with them; all but `oct` could verify a signature of their owner."""
    public = {name: key.jwk[name] for name in ("kty", "n", "e")}
    private = RSAAlgorithm.to_jwk(key.private, as_dict=True)
    own_ec = ECAlgorithm.to_jwk(curve, as_dict=True)
    point = {name: own_ec[name] for name in ("kty", "crv", "x", "y")}
    one = b64(b"\1".rjust(32, b"\0"))
    return {
        "RSA of 1024 bits": RSAAlgorithm.to_jwk(small.public_key(), as_dict=True) | {"key_ops": ["verify"]},
        "RSA of 16384 bits": {**public, "n": b64(b"\xff" * 2048)},
        "RSA with exponent 1": small_exponent(public),
        "RSA with exponent 2": {**public, "e": "Ag"},
        "RSA with a huge exponent": {**public, "e": public["n"]},
        "RSA with modulus 0": {**public, "n": "AA"},
        "RSA without n": {"kty": "RSA", "e": "AQAB"},
        "RSA with n a number": {**public, "n": 5},
        "use enc": {**public, "use": "enc"},
        "use unknown": {**public, "use": "tls"},
        "use a list": {**public, "use": ["sig"]},
        "key_ops sign": {**public, "key_ops": ["sign"]},
        "key_ops encrypt": {**public, "key_ops": ["encrypt", "wrapKey"]},
        "key_ops a text": {**public, "key_ops": "verify"},
        "alg none": {**public, "alg": "none"},
        "alg HS256": {**public, "alg": "HS256"},
        "alg RS512": {**public, "alg": "RS512"},
        "alg RSA-OAEP": {**public, "alg": "RSA-OAEP-256"},
        "a private RSA key": {**private, "key_ops": ["verify"]},
        "a private EC key": {**own_ec, "key_ops": ["verify"]},
        "a private key with its first prime only": {**public, "p": private["p"]},
        "a public key with a secret": {**public, "k": "AAAA"},
        "oct": {"kty": "oct", "k": b64(b"k" * 32), "alg": "HS256"},
        "oct called RSA": {"kty": "RSA", "k": b64(b"k" * 32)},
        "off the curve": {**point, "x": one, "y": one},
        "the point of zeros": {**point, "x": b64(bytes(32)), "y": b64(bytes(32))},
        "a short coordinate": {**point, "x": point["x"][:8]},
        "another curve's name": {**point, "crv": "P-384"},
        "a curve that nobody has": {**point, "crv": "P-257"},
        "secp256k1": {**point, "crv": "secp256k1"},
        "brainpool": {**point, "crv": "BP-256"},
        "another kind": {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA"},
        "kty in small letters": {**public, "kty": "rsa"},
        "kty a list": {**public, "kty": ["RSA"]},
        "no kty": {"n": public["n"], "e": public["e"]},
        "standard base64": {**public, "n": public["n"].replace("-", "+").replace("_", "/") + "=="},
        "only a chain": {"kty": "RSA", "x5c": ["AAAA"]},
    }


@pytest.fixture(scope="module")
def odd(world):
    """The third issuer with its cabinet: two good keys, two of one name, one without a name, and all the odd ones."""
    provider, curve = world.odd, ec.generate_private_key(ec.SECP256R1())
    provider.lost = Key("lost", "RS256")
    provider.small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what must not pass
    provider.curve = curve
    provider.cabinet = cabinet(provider.lost, provider.small, curve)
    assert set(provider.cabinet) == set(CABINET)
    provider.twins = [Key("twin", "RS256"), Key("twin", "ES256"), Key("twin", "RS256")]
    strays = ["text", None, 5, [], {}, {"kid": 1, "kty": "RSA"}]
    entries = [{**jwk, "kid": name} for name, jwk in provider.cabinet.items()]
    provider.keys = [*strays, *entries, *provider.keys, *(twin.jwk for twin in provider.twins)]
    wait_for(lambda: world.service.exchange(provider.token(provider.twins[0])).status == 200)  # they are fetched
    return provider


CABINET = (
    *("RSA of 1024 bits", "RSA of 16384 bits", "RSA with exponent 1", "RSA with exponent 2"),
    *("RSA with a huge exponent", "RSA with modulus 0", "RSA without n", "RSA with n a number", "use enc"),
    *("use unknown", "use a list", "key_ops sign", "key_ops encrypt", "key_ops a text", "alg none"),
    *("alg HS256", "alg RS512", "alg RSA-OAEP", "a private RSA key", "a private EC key"),
    *("a private key with its first prime only", "a public key with a secret", "oct", "oct called RSA"),
    *("off the curve", "the point of zeros", "a short coordinate", "another curve's name"),
    *("a curve that nobody has", "secp256k1", "brainpool", "another kind", "kty in small letters"),
    *("kty a list", "no kty", "standard base64", "only a chain"),
)


@pytest.mark.parametrize("name", CABINET)
def test_a_key_that_is_not_fit_to_verify_proves_nothing(world, odd, name):
    """JW-04, JW-14, JK-07, lesson 3.3: though its owner signed rightly. The other keys of the set go on."""
    jwk = odd.cabinet[name]
    if jwk.get("kty") == "EC":
        key = Key.__new__(Key)
        key.private, key.alg, key.kid = odd.curve, "ES256", name
        token = key.sign(odd.claims())
    elif name == "RSA with exponent 1":
        token = forged_with_exponent_one(odd, name)
    else:
        private = odd.small if name == "RSA of 1024 bits" else odd.lost.private
        text = f"{b64({'alg': 'RS256', 'kid': name})}.{b64(odd.claims())}"
        token = f"{text}.{b64(rs256(private, text))}"
    world.doors.refuse(token, "unknown_key")


def forged_with_exponent_one(provider, name):
    text = f"{b64({'alg': 'RS256', 'kid': name})}.{b64(provider.claims())}"
    hashed = hashes.Hash(hashes.SHA256())
    hashed.update(text.encode())
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashed.finalize()
    encoded = b"\0\1" + b"\xff" * (253 - len(info)) + b"\0" + info
    return f"{text}.{b64(encoded)}"


def test_a_secret_key_in_a_public_set_makes_no_mac_valid(world, odd):
    """JW-05, JK-03: `oct` in an issuer's set."""
    token = Key.__new__(Key)
    token.private, token.alg, token.kid = b"k" * 32, "HS256", "oct"
    world.doors.refuse(token.sign(odd.claims()), "bad_algorithm")


def test_the_good_keys_beside_odd_ones_go_on(world, odd):
    """JK-07."""
    world.doors.accept(odd.token())
    world.doors.accept(odd.token(odd.ec))


def test_two_keys_of_one_name_are_both_the_issuers(world, odd):
    """RFC 7517 §4.5: both prove, each by its own algorithm; a third that is called alike does not."""
    for twin in odd.twins:
        world.doors.accept(odd.token(twin))
    world.doors.refuse(Key("twin", "RS256").sign(odd.claims()), "bad_signature")


def test_a_flood_of_unknown_keys_causes_no_flood_of_fetches(world):
    """JK-08, lesson 2.10 (CVE-2026-48524 PyJWKClient), lesson 3.7 (hydra #2535, go-oidc #482)."""
    world.doors.accept(world.second.token())
    before, began = world.second.fetches, time.monotonic()
    for number in range(30):
        header = {"kid": f"flood-{number}"}
        answer = world.doors.at_token(world.second.token(header=header))
        world.doors.refused(answer, "unknown_key")
    assert world.second.fetches - before <= 1 + (time.monotonic() - began) / COOL_DOWN[0]
    world.doors.accept(world.second.token())


def test_a_key_that_the_issuer_withdrew_proves_nothing_any_more(own_world):
    """Lesson 2.15 (a known `kid` stays trusted), lesson 3.2: nor does a token from the cache that it once proved."""
    world = own_world.start()
    provider = world.file
    token = provider.token()
    assert world.doors.at_token(token).status == 200
    assert world.doors.event(world.doors.at_token(token))[0]["cached"]
    assert world.doors.at_forward(token).status == 200
    world.write_file([provider.ec.jwk])
    world.reload()
    world.doors.refuse(token, "unknown_key")
    world.doors.refuse(provider.token(), "unknown_key")
    world.doors.accept(provider.token(provider.ec))
    replaced = Key("rsa-1", "RS256")  # the same name, another key
    world.write_file([provider.ec.jwk, replaced.jwk])
    world.reload()
    world.doors.refuse(token, "bad_signature")
    world.doors.accept(provider.token(replaced))


def test_an_issuer_whose_set_leads_elsewhere_is_not_followed(own_world, trap):
    """JW-23, lesson 3.7 and CVE-2026-31837 (Istio: a failed fetch fell back to built-in keys): refused, not guessed."""

    def redirect(handler):
        handler.reply(b"", 302, [("Location", f"{trap.url}/jwks.json")])

    own_world.second.answer = redirect
    world = own_world.start()
    world.doors.refuse(world.second.token(), "source_unreachable")
    world.doors.accept(world.first.token())  # the others go on
    assert trap.connections == 0


def test_a_set_without_a_usable_key_proves_nothing(own_world, make_source):
    """JK-07, JW-14: what is left of such a set is nothing, and the answer is that it cannot be said."""
    provider = own_world.second
    private = RSAAlgorithm.to_jwk(provider.rsa.private, as_dict=True)
    small = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)  # noqa: S505 - too
    sets = {
        "private": {"keys": [private | {"kid": "rsa-1", "key_ops": ["verify"]}]},
        "oct": {"keys": [{"kty": "oct", "k": "AAAA", "kid": "rsa-1"}]},
        "enc": {"keys": [{**provider.rsa.jwk, "use": "enc"}]},
        "weak": {"keys": [small | {"kid": "rsa-1", "key_ops": ["verify"]}]},
        "empty": {"keys": []},
        "no-list": {"keys": provider.rsa.jwk},
        "bare": [provider.rsa.jwk],
        "twice": f'{{"keys":[],"keys":[{json.dumps(provider.rsa.jwk)}]}}',
    }
    provider.answer = lambda handler: handler.reply(_text(sets[handler.path.strip("/")]))
    for name in sets:
        more = make_source(name, jwks_uri=provider.url.replace("jwks.json", name))
        own_world.configuration["sources"][name] = more
        own_world.configuration["clients"]["edge-gateway"]["sources"].append(name)
    world = own_world.start()
    for name in sets:
        iss = f"https://{name}.example"
        world.doors.refuse(provider.token(iss=iss), "source_unreachable")
        world.doors.refuse(provider.token(iss=iss, header={"kid": None}), "source_unreachable")


def _text(document):
    return (document if isinstance(document, str) else json.dumps(document)).encode()
