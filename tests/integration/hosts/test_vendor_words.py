"""What a platform says is kept short and without the account's key, and understood as what it is about."""

from pathlib import Path

import pytest

from infra.simulators.accounts import GOOD
from peft_studio.errors import ResourceUnavailable
from tests.integration.hosts.rows import ROWS
from tests.integration.hosts.serving import serving_at

pytestmark = pytest.mark.anyio
HUGGINGFACE = next(row for row in ROWS if row.name == "huggingface")
REPLICATE = next(row for row in ROWS if row.name == "replicate")


async def test_a_containers_log_that_shows_the_key_is_kept_short_and_without_it(tmp_path: Path) -> None:
    with serving_at(HUGGINGFACE, tmp_path) as serving:
        wanted = serving.wanted()
        await serving.host.deploy(wanted)
        shown = serving.hosting.deployed(wanted.name)
        assert shown is not None
        shown.details["halted"] = f"broken with HF_TOKEN={GOOD}: " + "a line of the log " * 500
        hosted = await serving.host.look(wanted.name)
    assert hosted is not None and "broken with HF_TOKEN=" in hosted.reason
    assert GOOD not in hosted.reason and len(hosted.reason) <= 300


async def test_a_conversation_that_replicate_cannot_be_asked_is_no_verdict_on_the_adapter(tmp_path: Path) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    with serving_at(REPLICATE, tmp_path) as serving:
        running = await serving.running(serving.wanted())
        with pytest.raises(ResourceUnavailable, match="no conversation"):
            await serving.host.say(running, str(running.model), conversation, 5)
