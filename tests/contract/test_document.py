"""The promises are what the API's document says, where it lies beside the repository."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract.promises import (
    BASE_URL,
    CODES,
    DEFAULTS,
    ERROR,
    MESSAGES,
    PROMISES,
    REQUESTS_A_MINUTE,
    SOCKET_URL,
    SOCKETS_A_KEY,
    Promise,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT.parent / "shared" / "contract.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not DOCUMENT.is_file(), reason="the API's document does not lie beside the repository")


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Text by heading."""
    parts = re.split(r"^##+ (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return [block for found, block in BLOCK.findall(text) if found == language]


def examples(text: str) -> list[Any]:
    return [_read(block) for block in blocks(text, "json")]


def _read(block: str) -> Any:
    """Read an example; what it leaves out becomes ``...``."""
    elided = block.replace("{...}", '"..."').replace("[...]", '["..."]')

    def whole(value: Any) -> Any:
        match value:
            case dict():
                return {name: whole(inner) for name, inner in value.items()}
            case list():
                return [whole(inner) for inner in value]
            case _:
                return ... if value == "..." else value

    return whole(json.loads(elided))


def test_every_route_of_the_document_is_in_the_table_and_no_other(sections: dict[str, str]) -> None:
    routes = {title: found[0].strip() for title, text in sections.items() if (found := blocks(text, "http"))}
    assert {promise.title: f"{promise.method} {promise.path}" for promise in PROMISES} == routes


@pytest.mark.parametrize("promise", PROMISES, ids=[promise.title for promise in PROMISES])
def test_an_example_is_the_documents(sections: dict[str, str], promise: Promise) -> None:
    promised = [promise.answer] if promise.body is None else [promise.body, promise.answer]
    assert examples(sections[promise.title]) == promised


@pytest.mark.parametrize("promise", PROMISES, ids=[promise.title for promise in PROMISES])
def test_the_parts_of_a_form_are_the_documents(sections: dict[str, str], promise: Promise) -> None:
    _, _, form = sections[promise.title].partition("(multipart/form-data):**")
    assert tuple(re.findall(r"^- `(\w+)`:", form, re.MULTILINE)) == promise.form


@pytest.mark.parametrize(("title", "name"), DEFAULTS)
def test_a_default_is_the_documents(sections: dict[str, str], title: str, name: str) -> None:
    assert re.search(rf"- `{name}`: .*\(default: {DEFAULTS[title, name]}\)", sections[title])


def test_messages_errors_and_codes_are_the_documents(sections: dict[str, str]) -> None:
    assert examples(sections["Real-time Job Updates"]) == list(MESSAGES.values())
    assert examples(sections["Error Responses"]) == [ERROR]
    assert dict(re.findall(r"- `(\w+)`: (.+)", sections["Error Codes"])) == CODES


def test_addresses_and_limits_are_the_documents(sections: dict[str, str]) -> None:
    assert BASE_URL in sections["Base URL"]
    assert SOCKET_URL in sections["Real-time Job Updates"]
    assert re.findall(r"\d+", sections["Rate Limits"]) == [str(REQUESTS_A_MINUTE), str(SOCKETS_A_KEY)]


@pytest.mark.parametrize("language", ["Python", "JavaScript"])
def test_the_sdk_example_that_is_run_is_the_documents(sections: dict[str, str], language: str) -> None:
    transcribed = (ROOT / "tests" / "contract" / "sdk" / f"{language.lower()}.txt").read_text()
    assert blocks(sections[language], language.lower()) == [transcribed]
