"""Each lesson from what went wrong elsewhere has a test that names it in its docstring: "lesson 3.4"."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LESSONS = {
    # at gateways
    "3.1": "the key of a cache holds every input of the decision",
    "3.2": "nothing that was cached or minted outlives its cause",
    "3.3": "an algorithm belongs to a key and is never the token's choice",
    "3.4": "what a client sends is never taken for the gateway's word",
    "3.5": "a path and a host are read in one way, or refused",
    "3.6": "a key and its name are one step; without a signature nothing goes out",
    "3.7": "fetching fails closed, in bounded time, and harms nobody else",
    "3.8": "a claim is data and cannot add another",
    "3.9": "no credential, claim or key stands in an error, a log or a shared cache",
    "3.10": "a certificate proves somebody only after it was asked for and checked; operators' pages are theirs",
    # at token exchanges
    "2.1": "what subject, source and audience allow is asked of each, and unknown is not all",
    "2.2": "a limit refuses and never cuts; no request falls through to another grant",
    "2.3": "who acted stays named, whichever way the token comes back",
    "2.4": "one choke point for consent, whatever the credential",
    "2.5": "an opaque token is judged like a JWT",
    "2.6": "what is disabled ends at once, in the cache too",
    "2.7": "only the audience learns what a token says",
    "2.8": "an issuer's name is looked up and never visited",
    "2.9": "an encrypted token proves nothing until a signed one inside is verified",
    "2.10": "a failed refresh replaces no good keys, and a flood of key ids causes none of fetches",
    "2.11": "keys belong to their issuer, and entries of a cache to their request",
    "2.12": "algorithms are compared exactly, and each key has one",
    "2.13": "a claim that is missing skips no check",
    "2.14": "a cut token is no token",
    "2.15": "a key that was withdrawn is trusted no more, though it is known",
    "2.16": "joined names do not collide",
    "2.17": "nothing written means nothing allowed",
    "2.18": "a binding is proven, or the token refused; it is never stripped",
    "2.19": "what may be written down is listed, not what may not",
    "2.20": "what is no compact JWS of plain base64url is refused",
    # caches
    "C.1": "a cached answer says what is left of it; refusals by trouble are not kept, and floods push nothing out",
    "C.2": "a credential that may be used once meets its mark before any cache",
    "C.3": "an introspection is believed for a short, bounded time",
    "C.4": "a key set may be cached and revalidated",
    "C.5": "the last good keys serve for a bounded time",
    # rotation of keys
    "R.1": "several processes on an empty store make one ring",
    "R.2": "a schedule that cannot work is refused",
    "R.3": "without a key that may sign there is no token",
    "R.4": "encryption keys rotate in the mirror order",
    "R.5": "no key leaves before the last token that it may have signed",
    "R.6": "no key signs before every verifier has it",
    "R.7": "a revoked key takes its cached tokens with it",
    "R.8": "an empty or broken key changes nothing",
}
"""Those that apply to what is built. The numbers are those of the notes that they came from."""
_NAMED = re.compile(r"\b[Ll]essons? ((?:[0-9CR]+\.[0-9]+(?:, | and )?)+)")


def named():
    for file in TESTS.rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        for test in tests:
            for found in _NAMED.findall(ast.get_docstring(test) or ""):
                yield from re.findall(r"[0-9CR]+\.[0-9]+", found)


def test_each_lesson_has_a_test_and_each_test_a_lesson_that_there_is():
    assert set(named()) == set(LESSONS)
