"""Uploads, streamed to files: whole and hashed, or refused with the part that is wrong."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, Request, post
from litestar.testing import TestClient

from api.errors import respond
from api.uploads import receive_body, receive_form

LIMITS = {"file": 3 << 20, "metadata": 100}
BOUNDARY = "limit"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient[Litestar]]:
    @post("/form", request_max_body_size=None)
    async def form(request: Request[Any, Any, Any]) -> dict[str, Any]:
        parts = await receive_form(request, tmp_path, LIMITS)
        return {name: [part.path.name, part.filename, part.size, part.sha256] for name, part in parts.items()}

    @post("/raw", request_max_body_size=None)
    async def raw(request: Request[Any, Any, Any]) -> list[Any]:
        body = await receive_body(request, tmp_path / "body", 10)
        return [body.filename, body.size, body.sha256]

    with TestClient(Litestar([form, raw], exception_handlers={Exception: respond})) as client:
        yield client


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def details(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["details"]


def test_parts_lie_in_files_of_their_own_whatever_they_are_called(client: TestClient[Litestar], tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    answer = client.post(
        "/form", content=part("file", content, "../../x.bin") + part("metadata", b"{}") + END, headers=FORM
    )
    assert answer.json() == {
        "file": ["file", "../../x.bin", len(content), hashlib.sha256(content).hexdigest()],
        "metadata": ["metadata", None, 2, hashlib.sha256(b"{}").hexdigest()],
    }
    assert (tmp_path / "file").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "metadata"]


def test_a_body_that_comes_a_byte_at_a_time_is_the_same(client: TestClient[Litestar], tmp_path: Path) -> None:
    body = part("file", b"\r\n--limi\r\n" * 9) + END
    answer = client.post("/form", content=(body[n : n + 1] for n in range(len(body))), headers=FORM)
    assert answer.json()["file"][2] == 90
    assert (tmp_path / "file").read_bytes() == b"\r\n--limi\r\n" * 9


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (part("file", b"x"), 400, "body"),
        (part("file", b"x") + END[:-4], 400, "body"),
        (b"", 400, "body"),
        (b"no form at all", 400, "body"),
        (part("other", b"x") + END, 400, "other"),
        (part("", b"x") + END, 400, ""),
        (part("file", b"x") * 2 + END, 400, "file"),
        (part("metadata", b"x" * 101) + END, 413, "metadata"),
        (part("file", b"x" * ((3 << 20) + 1)) + END, 413, "file"),
        (part("file", b"x" * (4 << 20)) + END, 413, "body"),
        (part("file\r\nX: " + "y" * 5000, b"x") + END, 400, "body"),
    ],
)
def test_a_form_that_is_wrong_is_refused_with_the_part(
    client: TestClient[Litestar], body: bytes, status: int, field: str
) -> None:
    assert details(client.post("/form", content=body, headers=FORM), status)["field"] == field


def test_a_form_without_end_is_cut_off_whether_or_not_it_has_parts(client: TestClient[Litestar]) -> None:
    body = (b"\n" * (1 << 20) for _ in range(20))
    assert details(client.post("/form", content=body, headers=FORM), 413)["field"] == "body"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", None])
def test_what_is_no_form_is_refused(client: TestClient[Litestar], kind: str | None) -> None:
    answer = client.post("/form", content=b"{}", headers={"Content-Type": kind} if kind else {})
    assert details(answer, 415) == {"expected": "multipart/form-data"}


def test_a_raw_body_is_taken_as_it_is_up_to_its_limit(client: TestClient[Litestar], tmp_path: Path) -> None:
    assert client.post("/raw", content=b"0123456789").json() == [None, 10, hashlib.sha256(b"0123456789").hexdigest()]
    assert (tmp_path / "body").read_bytes() == b"0123456789"
    (tmp_path / "body").unlink()
    assert client.post("/raw", content=b"").json()[1] == 0
    assert details(client.post("/raw", content=b"x" * 11), 413) == {"field": "body", "limit_bytes": 10}
    assert details(client.post("/raw", content=(b"x" for _ in range(11))), 413)["limit_bytes"] == 10
