"""Machines elsewhere are not rented by a studio that they could never come back to."""

from typing import Any

import pytest

from infra.rendezvous.reach import require_reachable
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable

ELSEWHERE, HERE = "https://api.runpod.io", "http://127.0.0.1:9001/runpod"


@pytest.mark.parametrize(
    ("addresses", "settings"),
    [
        (HERE, {}),
        ("127.0.0.1:2201,localhost:2202", {}),
        (ELSEWHERE, {"public_url": "https://studio.example.com"}),
        (ELSEWHERE, {"bucket": "s3://bucket/path"}),
        (ELSEWHERE, {"host": "192.0.2.7"}),
    ],
)
def test_a_way_back_is_seen(addresses: str, settings: dict[str, Any]) -> None:
    require_reachable("RunPod", addresses, Settings.model_validate(settings))


@pytest.mark.parametrize(
    ("addresses", "settings"),
    [
        (ELSEWHERE, {}),
        (ELSEWHERE, {"host": "0.0.0.0"}),
        (ELSEWHERE, {"public_url": "http://localhost:8000"}),
        ("127.0.0.1,gpu.example.com", {}),
        ("gpu.example.com:2222", {"host": "::1"}),
    ],
)
def test_no_way_back_is_refused_with_what_to_do(addresses: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ResourceUnavailable, match="PEFT_STUDIO_PUBLIC_URL"):
        require_reachable("RunPod", addresses, Settings.model_validate(settings))
