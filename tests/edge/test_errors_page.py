"""docs/errors.md says what the code does."""

from pathlib import Path

from sts.edge import form, token
from sts.errors import REASONS, Reason

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
FORWARD_AUTH_ONLY = {"no_route", "ambiguous_path", "unsafe_header_value", "profile_header_missing"}
TOKEN_ONLY = {"audience_missing"}


def row(reason):
    at_token = "-" if reason.name in FORWARD_AUTH_ONLY else f"{reason.token_status} `{reason.error}`"
    challenge = f" `{reason.challenge}`" if reason.challenge else ""
    at_forward_auth = "-" if reason.name in TOKEN_ONLY else f"{reason.forward_status}{challenge}"
    return f"| `{reason.name}` | {at_token} | {at_forward_auth} | {reason.sentence} |"


def test_the_page_lists_every_reason_and_no_other():
    rows = [line for line in PAGE.split("## ", 1)[0].splitlines() if line.startswith("| `")][1:]
    assert rows == [row(reason) for reason in REASONS.values()]


def test_the_page_lists_every_other_code_of_the_token_door():
    section = PAGE.split("## ")[1]
    derived = [value for module in (form, token) for value in vars(module).values() if isinstance(value, Reason)]
    wanted = {
        (str(reason.token_status), f"`{reason.error}`", f"`{reason.name}`")
        for reason in derived
        if reason not in REASONS.values()
    }
    listed = {tuple(cell.strip() for cell in line.split("|")[2:5]) for line in section.splitlines() if line[:2] == "| "}
    assert wanted == {cells for cells in listed if cells[0].isdigit()}


def test_what_callers_read_stays_within_the_characters_of_an_error_description():
    for reason in REASONS.values():  # RFC 6749 §5.2, RFC 6750 §3
        assert all(
            character in " !" or "#" <= character <= "[" or "]" <= character <= "~" for character in reason.sentence
        )
