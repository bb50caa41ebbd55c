"""
The Python client.

    with Client("http://127.0.0.1:8000", key) as studio:
        job = studio.create_job({"base_model": "demo/model", "dataset_path": "demo/support.jsonl"})
        for event in studio.follow(job["job_id"]):
            print(event)
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import connect

from peft_studio import errors
from peft_studio.config import TrainingConfig
from peft_studio.errors import StudioError
from peft_studio.events import Event, Status, parse_event
from peft_studio.jobs import Job

_BY_CODE = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StudioError)
}
_RECONNECT_SECONDS = 60.0


class Client:
    """A connection to a studio. Whatever the studio refuses is raised as the ``StudioError`` of its code."""

    def __init__(self, url: str, api_key: str, *, timeout: float = 30.0):
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=f"{self._url}/api/v1", headers=self._headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def create_job(
        self, config: TrainingConfig | dict[str, Any], *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Submit a job; the answer has its id and what it is expected to cost and to take."""
        if isinstance(config, TrainingConfig):
            config = config.model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._request("POST", "/jobs", json={"config": config}, headers=headers)

    def get_job(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return Job.model_validate(self._request("GET", _path(job_id)))

    def list_jobs(self, **filters: Any) -> dict[str, Any]:
        """Return jobs, newest first; ``status``, ``provider`` and ``limit`` narrow them down."""
        return self._request("GET", "/jobs", params=filters)

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Stop a job; its last checkpoint is kept."""
        return self._request("POST", f"{_path(job_id)}/cancel")

    def get_logs(self, job_id: str, lines: int = 100) -> list[dict[str, Any]]:
        """Return a job's newest log lines, oldest first."""
        return self._request("GET", f"{_path(job_id)}/logs", params={"lines": lines})["logs"]

    def follow(self, job_id: str) -> Iterator[Event]:
        """Yield a job's events from its beginning to its final status; connects again where it was cut off."""
        cursor, deadline = "", time.monotonic() + _RECONNECT_SECONDS
        address = f"{self._url.replace('http', 'ws', 1)}/ws/jobs/{quote(job_id)}"
        while True:
            try:
                where = f"{address}?after={cursor}" if cursor else address
                with connect(where, additional_headers=self._headers) as socket:
                    for message in socket:
                        deadline = time.monotonic() + _RECONNECT_SECONDS
                        event = parse_event(message if isinstance(message, bytes) else message.encode())
                        cursor = event.cursor or cursor
                        yield event
                        if isinstance(event, Status) and event.status.is_final:
                            return
            except (OSError, ConnectionClosed, InvalidStatus) as lost:
                if _is_refusal(lost):
                    self.get_job(job_id)  # the same refusal over REST says why
                    raise
                _wait(deadline, lost)

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._http.request(method, path, **arguments)
        if response.is_error:
            raise _error_of(response)
        return response.json()


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def _is_refusal(lost: Exception) -> bool:
    """Tell a refusal, which would come again, from a server that is away for a moment."""
    match lost:
        case ConnectionClosed(rcvd=Close(code=code)):
            return 4400 <= code < 4500
        case InvalidStatus(response=response):
            return response.status_code < 500
        case _:
            return False


def _wait(deadline: float, error: Exception) -> None:
    """Pause before connecting again, or give up."""
    if time.monotonic() > deadline:
        raise error
    time.sleep(0.5)


def _error_of(response: httpx.Response) -> StudioError:
    """Turn the contract's error body back into the error it came from."""
    try:
        error = response.json()["error"]
        return _BY_CODE.get(error["code"], StudioError)(error["message"], **error["details"])
    except (ValueError, KeyError, TypeError):
        return StudioError(f"The server answered {response.status_code} {response.reason_phrase}.")
