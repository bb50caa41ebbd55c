import asyncio
from collections.abc import Mapping
from datetime import datetime

import httpx
import pytest

from infra.key_use import KeyUse

pytestmark = pytest.mark.anyio


class Record:
    """What was written, in order, and an outage at will."""

    def __init__(self) -> None:
        self.writes: list[dict[str, datetime]] = []
        self.is_down = False

    async def write(self, uses: Mapping[str, datetime]) -> None:
        self.writes.append(dict(uses))
        if self.is_down:
            raise httpx.ConnectError("nobody there")


async def settled(use: KeyUse) -> None:
    assert use._writing is not None
    await asyncio.wait_for(use._writing, 5)


async def test_uses_that_come_together_are_written_together_and_once() -> None:
    record = Record()
    use = KeyUse(record.write, gather=0.01)
    for _ in range(100):
        use.note("a")
        use.note("b")
    await settled(use)
    assert [write.keys() for write in record.writes] == [{"a", "b"}]
    use.note("a")
    assert use._writing is not None and use._writing.done()


async def test_a_key_that_is_used_again_later_is_written_again() -> None:
    record = Record()
    use = KeyUse(record.write, every=0, gather=0)
    for _ in range(2):
        use.note("a")
        await settled(use)
    first, second = (write["a"] for write in record.writes)
    assert first < second


async def test_the_last_use_is_written_at_the_end() -> None:
    record = Record()
    use = KeyUse(record.write, gather=0)
    use.note("a")
    await settled(use)
    use.note("a")
    await use.close()
    assert record.writes[-1] == use.seen
    await use.close()
    assert len(record.writes) == 2


async def test_an_end_that_comes_before_the_first_writing_loses_nothing() -> None:
    record = Record()
    use = KeyUse(record.write, gather=1000)
    use.note("a")
    await use.close()
    assert [write.keys() for write in record.writes] == [{"a"}]


async def test_an_outage_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    record = Record()
    record.is_down = True
    use = KeyUse(record.write, gather=0)
    use.note("a")
    await settled(use)
    await use.close()
    assert "cannot be written" in caplog.text
