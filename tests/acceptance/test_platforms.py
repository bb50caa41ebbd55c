"""Platforms of a real studio: credentials survive restarts of the API, and are in clear nowhere on its disk."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.studio import Studio
from infra.simulators.accounts import GOOD, create_accounts
from infra.simulators.loopback import served
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import is_ready, part, short_job

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


def test_credentials_are_kept_encrypted_and_forgotten_on_request(studio: Studio) -> None:
    headers = {"Authorization": f"Bearer {studio.key}"}
    with served(create_accounts()) as address, httpx.Client(base_url=f"{studio.url}/api/v1", headers=headers) as api:

        def connect(**credentials: str) -> httpx.Response:
            return api.post("/platforms/wandb/connect", json={"credentials": credentials})

        def status() -> str:
            return next(p["status"] for p in api.get("/platforms").json()["platforms"] if p["name"] == "wandb")

        def planned() -> tuple[int, Any]:
            answer = api.post("/jobs/plan", json={"config": short_job(experiment_tracker="wandb")})
            return answer.status_code, answer.json().get("error", {}).get("code")

        api.delete("/platforms/wandb")  # a try before this one may have ended in the middle
        assert status() == "disconnected"
        assert planned() == (409, "PLATFORM_NOT_CONNECTED")
        refused = connect(api_key="wrong", base_url=f"{address}/wandb")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "AUTHENTICATION_FAILED")
        assert connect(api_key=GOOD, base_url=f"{address}/wandb").json()["status"] == "connected"
        assert connect(api_key="wrong").status_code >= 400
        part(studio, "api.app").kill()
        assert eventually(lambda: is_ready(studio), 150)
        assert status() == "connected"
        assert planned() == (200, None)
        # The key that is stored is the one of the good connection, and it is used to check again.
        assert api.post("/platforms/wandb/verify").json()["status"] == "connected"
        # The write-ahead log is among the files: what was once in clear in the database would be found.
        assert _files_with(studio.data_dir, b"peft-studio-platform")
        assert _files_with(studio.data_dir, GOOD.encode()) == []
        assert api.delete("/platforms/wandb").status_code == 200
        assert status() == "disconnected"
        assert planned() == (409, "PLATFORM_NOT_CONNECTED")


def _files_with(folder: Path, words: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and words in path.read_bytes()]
