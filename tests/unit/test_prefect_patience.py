"""A job's calls to Prefect while its server fails."""

import httpx
import pytest

from infra.prefect_patience import attempt, insist

REQUEST = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")


class Server:
    """Fails so many times, then answers."""

    def __init__(self, *failures: httpx.HTTPError):
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "told"


def status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("failed", request=REQUEST, response=httpx.Response(code, request=REQUEST))


def test_a_server_that_fails_for_a_while_is_asked_until_it_answers() -> None:
    server = Server(status(500), httpx.ConnectError("away"), status(503))
    assert insist(server, pause=0) == "told"
    assert server.calls == 4


def test_a_refusal_is_final() -> None:
    server = Server(status(404))
    with pytest.raises(httpx.HTTPStatusError):
        insist(server, pause=0)
    assert server.calls == 1


def test_a_server_that_never_answers_is_given_up() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        insist(Server(*[status(500)] * 3), patience=-1, pause=0)


def test_what_is_only_shown_is_tried_once_and_harms_nobody() -> None:
    server = Server(status(500))
    attempt(server)
    assert server.calls == 1
