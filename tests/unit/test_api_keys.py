from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import pytest

from infra import api_keys
from infra.api_keys import KeyRecord, KeyRing
from peft_studio.errors import InvalidConfig, ResourceUnavailable

pytestmark = pytest.mark.anyio


class Store:
    """Keys as Prefect would return them, an outage at will, and a count of readings."""

    def __init__(self, *records: KeyRecord):
        self.records = list(records)
        self.is_down = False
        self.readings = 0

    async def read(self) -> Sequence[KeyRecord]:
        self.readings += 1
        if self.is_down:
            raise httpx.ConnectError("nobody there")
        return self.records


def a_key(secret: str, name: str = "me", revoked: bool = False) -> KeyRecord:
    now = datetime.now(UTC)
    return KeyRecord(
        id="0123456789ab",
        name=name,
        role="write",
        created_at=now,
        revoked_at=now if revoked else None,
        sha256=api_keys.digest(secret),
    )


async def test_a_live_key_is_recognised_by_its_secret() -> None:
    key = await KeyRing(Store(a_key("ps_one")).read).authenticate("ps_one")
    assert key is not None
    assert (key.id, key.name, key.role) == ("0123456789ab", "me", "write")
    assert "sha256" not in key.model_dump()


@pytest.mark.parametrize("secret", ["ps_two", "ps_on", "ps_onee", "", "one", "ps_gone"])
async def test_any_other_secret_is_nobodys(secret: str) -> None:
    store = Store(a_key("ps_one"), a_key("ps_gone", revoked=True))
    assert await KeyRing(store.read, pause=0).authenticate(secret) is None


async def test_a_new_key_works_at_once() -> None:
    store = Store()
    ring = KeyRing(store.read, max_age=1000, pause=0.01)
    assert await ring.authenticate("ps_new") is None
    store.records = [a_key("ps_new")]
    assert await ring.authenticate("ps_new") is not None


async def test_a_revoked_key_stops_working_when_what_is_known_has_aged() -> None:
    store = Store(a_key("ps_one"))
    ring = KeyRing(store.read, max_age=0, pause=0)
    assert await ring.authenticate("ps_one") is not None
    store.records = [a_key("ps_one", revoked=True)]
    assert await ring.authenticate("ps_one") is None


async def test_known_keys_are_not_read_again_for_every_request() -> None:
    store = Store(a_key("ps_one"))
    ring = KeyRing(store.read)
    for _ in range(100):
        assert await ring.authenticate("ps_one") is not None
    assert store.readings == 1


async def test_known_keys_go_on_working_while_the_record_cannot_be_read() -> None:
    store = Store(a_key("ps_one"))
    ring = KeyRing(store.read, max_age=0, pause=0)
    assert await ring.authenticate("ps_one") is not None
    store.is_down = True
    assert await ring.authenticate("ps_one") is not None


async def test_of_unknown_keys_nothing_is_said_while_the_record_cannot_be_read() -> None:
    store = Store(a_key("ps_one"))
    store.is_down = True
    with pytest.raises(ResourceUnavailable):
        await KeyRing(store.read, pause=0).authenticate("ps_one")


@pytest.mark.parametrize("name", ["", " me", "me ", "a\nb", "x" * 65, "\x1b[31mred"])
async def test_names_are_short_and_printable(name: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        await api_keys.create(name)
    assert caught.value.details["field"] == "name"
