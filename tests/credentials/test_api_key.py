"""The settings of a source of API keys, and which source a text is for."""

import pytest
from pydantic import ValidationError

from sts.credentials.api_key import ApiKeyKind, ApiKeySource, ApiKeySourceSettings
from sts.errors import TOO_LARGE, UNKNOWN_ISSUER
from sts.model import TYPE_API_KEY, Credential
from sts.state.key_records import make


def settings(**more):
    return ApiKeySourceSettings.model_validate(
        {"type": "api_key", "prefix": "sk_live_", "identity": {"subject": "key.owner"}, **more}
    )


@pytest.mark.parametrize("header", ["X-API-Key", "apikey", "Ocp-Apim-Subscription-Key", "X-Partner-Token"])
def test_keys_come_in_a_header_of_their_own(header):
    assert settings(header=header).header == header


@pytest.mark.parametrize(
    "header",
    [
        *("Authorization", "COOKIE", "Host", "DPoP", "X-Gateway-Secret", "X-Original-URI", "X-Forwarded-For"),
        *("Client-Cert", "X-SSL-Client-Verify", "Content-Length", "Transfer-Encoding", "X-Real-IP", "Sec-Fetch-Site"),
        *("Access-Control-Request-Method", "Proxy-Authorization", "X_API_Key", "X-API-Key ", "Ä", "", "x" * 65),
    ],
)
def test_a_header_that_means_something_else_holds_no_keys(header):
    with pytest.raises(ValidationError):
        settings(header=header)


@pytest.mark.parametrize(
    "prefix", ["", "_", "sk", "sk-live-", "1_", "sk live_", "eyJ", "s" * 32 + "_", "sk_.", "sk_\n"]
)
def test_a_prefix_is_a_word_that_ends_with_an_underscore(prefix):
    with pytest.raises(ValidationError):
        settings(prefix=prefix)


class Table:
    trouble = ""

    def known(self, prefix, text):
        return "an-id" if prefix == "sk_live_" and text.endswith("known") else ""


@pytest.fixture
def kind():
    prefixes = {"first": "sk_live_", "second": "sk_test_"}
    return ApiKeyKind([ApiKeySource(name, settings(prefix=one), Table()) for name, one in prefixes.items()])


def test_the_prefix_alone_says_whose_a_key_is(kind):
    found = [kind.recognise(Credential(TYPE_API_KEY, make(prefix)[1])).source for prefix in ("sk_live_", "sk_test_")]
    assert found == ["first", "second"]


@pytest.mark.parametrize("text", ["", "sk_live", "SK_LIVE_0123456789", " sk_live_0123456789", "pk_live_0123456789"])
def test_another_prefix_is_nobodys(kind, refused, text):
    with refused(UNKNOWN_ISSUER):
        kind.recognise(Credential(TYPE_API_KEY, text))


def test_a_long_text_is_not_even_read(kind, refused):
    assert kind.recognise(Credential(TYPE_API_KEY, "sk_live_" + "x" * 248))
    with refused(TOO_LARGE):
        kind.recognise(Credential(TYPE_API_KEY, "sk_live_" + "x" * 249))


def test_only_a_key_that_there_is_has_a_name(kind):
    assert kind.recognise(Credential(TYPE_API_KEY, "sk_live_known")).credential_id == "an-id"
    assert kind.recognise(Credential(TYPE_API_KEY, "sk_live_other")).credential_id == ""
