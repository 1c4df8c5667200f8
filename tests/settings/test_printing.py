"""The configuration in force and the schema, as people and editors read them."""

import json

import yaml

from sts.settings import effective, load, schema


def test_what_is_in_force_can_be_loaded_again_once_the_secrets_are_put_back(data, tmp_path):
    settings = load(data / "minimal.yaml", {})
    shown = yaml.safe_load(effective(settings))
    assert shown["audiences"]["billing"]["ttl"] == "2m"
    assert shown["keys"]["rotate_every"] == "30d"
    assert shown["clients"]["edge-gateway"]["secrets"] == ["**********"]
    shown["clients"]["edge-gateway"]["secrets"] = [
        secret.get_secret_value() for secret in settings.clients["edge-gateway"].secrets
    ]
    again = tmp_path / "sts.yaml"
    again.write_text(yaml.safe_dump(shown))
    assert load(again, {}).revision == settings.revision


def test_no_secret_is_shown(base, loaded):
    secret = "S" * 42 + "A"
    base["secret"] = {"env": "STS_SECRET"}
    text = effective(loaded(base, {"STS_SECRET": secret}))
    assert secret not in text
    assert "a" * 64 not in text


def test_the_schema_refuses_what_is_unknown_and_explains_what_is_known():
    written = schema()
    assert written["additionalProperties"] is False
    assert written["required"] == ["issuer"]
    for name, definition in written["$defs"].items():
        assert definition["additionalProperties"] is False, name
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key} has no description"
    assert all(value.get("description") for value in written["properties"].values())
    assert json.loads(json.dumps(written)) == written


def test_the_schema_takes_no_key_with_nothing_behind_it():
    assert '"null"' not in json.dumps(schema())


def test_the_schema_takes_the_short_forms_and_what_defaults_may_give():
    written = schema()
    assert {"type": "string"} in written["properties"]["listen"]["anyOf"]
    assert written["$defs"]["SecretClient"]["required"] == ["auth"]  # which kind it is; all else may be a default
    assert written["$defs"]["Defaults"]["properties"]["audience"]["$ref"] == "#/$defs/AudienceSettings"
    assert all(one["type"] == "object" for one in written["properties"]["secret"]["anyOf"])
