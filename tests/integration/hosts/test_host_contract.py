"""
What ``infra/hosts/base.py`` promises, sentence by sentence, of every platform in ``rows.py``.

Over real sockets against the shipped simulators, which keep a ledger of what each deployment would cost.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from infra.hosts.base import Wanted
from infra.platforms.vendors import VENDORS
from infra.providers.base import NoCapacity
from infra.simulators.accounts import BROKE, GOOD
from infra.simulators.faults import FaultKind
from peft_studio.deployments import MeasuredBy
from peft_studio.errors import (
    CredentialRefused,
    InsufficientCredits,
    InvalidConfig,
    RateLimitExceeded,
    ResourceUnavailable,
    StudioError,
)
from peft_studio.platforms import Feature
from tests.integration.hosts.rows import ROWS, Row
from tests.integration.hosts.serving import PROMPT, Serving, eventually, serving_at

pytestmark = pytest.mark.anyio
CANARY = "canary-key-that-nobody-may-see"
QUESTIONS = (PROMPT, [{"role": "user", "content": PROMPT}])


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    with serving_at(request.param, tmp_path) as serving:
        yield serving


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_is_registered_where_deployments_look_for_it(row: Row) -> None:
    platform = VENDORS[row.name]
    assert Feature.INFERENCE in platform.supported
    key = [row.key_field] if row.has_key else []
    assert {*row.credentials, *key} <= {field.name for field in platform.fields}


async def test_an_adapter_is_deployed_answers_and_is_taken_off_again(serving: Serving) -> None:
    host, wanted = serving.host, serving.wanted()
    assert await host.look(wanted.name) is None
    running = await serving.running(wanted)
    assert running.name == wanted.name and running.model
    assert await serving.names() == [wanted.name]
    answer = await host.ask(running, PROMPT, chat=False, max_tokens=5, temperature=0.0)
    assert answer.text and answer.tokens_generated == 5 and answer.latency_ms > 0
    assert (await host.ask(running, PROMPT, chat=True, max_tokens=5, temperature=0.7)).text
    await serving.cleared(wanted.name)
    await host.remove(wanted.name)
    assert await serving.names() == []


@pytest.mark.parametrize("question", QUESTIONS, ids=["text", "messages"])
async def test_an_adapter_says_the_same_again_and_something_else_than_its_base_and_others(
    serving: Serving, question: str | list[dict[str, str]]
) -> None:
    host, wanted = serving.host, [serving.wanted("one"), serving.wanted("two"), serving.wanted("one")]
    hosted = [await serving.running(one) for one in wanted]
    one, two, again = [await host.say(where, str(where.model), question, 6) for where in hosted]
    assert one.tokens == again.tokens != two.tokens
    tells = serving.row.gives_logprobs and (isinstance(question, str) or serving.row.tells_chats)
    assert len(one.logprobs) == (len(one.tokens) if tells else 0)
    if serving.row.asks_base:
        assert (await host.say(hosted[0], str(hosted[0].base), question, 6)).tokens != one.tokens


async def test_requests_in_openais_form_are_handed_on_where_there_is_such_an_api(serving: Serving) -> None:
    running = await serving.running(serving.wanted())
    door = serving.host.door(running)
    if not serving.row.has_door:
        assert door is None
        return
    assert door is not None and GOOD not in repr(door)
    body = {**door.body, "model": door.model, "messages": QUESTIONS[1], "max_tokens": 4, "stream": True}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{door.url}/chat/completions", json=body, headers=dict(door.headers))
    assert answer.status_code == 200 and "data: [DONE]" in answer.text


async def test_all_that_is_there_is_listed(serving: Serving) -> None:
    names = {(await serving.host.deploy(serving.wanted())).name for _ in range(3)}
    listed = await serving.names()
    assert set(listed) == names and len(listed) == 3


async def test_what_is_deployed_again_is_there_once(serving: Serving) -> None:
    wanted = serving.wanted()
    for _ in range(3):
        await serving.host.deploy(wanted)
    await serving.running(wanted)
    await serving.host.deploy(wanted)
    check_once(serving, wanted)


async def test_a_crash_behind_any_change_leaves_one_of_each_when_it_is_deployed_again(serving: Serving) -> None:
    async for wanted in breaking_off(serving, lambda wanted: serving.tried(wanted)):
        await serving.host.deploy(wanted)
        check_once(serving, wanted)


async def test_a_deployment_that_broke_off_anywhere_is_taken_off_whole(serving: Serving) -> None:
    async for wanted in breaking_off(serving, lambda wanted: serving.tried(wanted)):
        await serving.cleared(wanted.name)


async def test_a_removal_that_broke_off_anywhere_is_made_whole_by_another(serving: Serving) -> None:
    async def removed(wanted: Wanted) -> None:
        with suppress(StudioError):
            await serving.host.remove(wanted.name)

    async for wanted in breaking_off(serving, removed, serving.host.deploy):
        await serving.cleared(wanted.name)


async def breaking_off(
    serving: Serving,
    doing: Callable[[Wanted], Awaitable[object]],
    before: Callable[[Wanted], Awaitable[object]] | None = None,
) -> AsyncGenerator[Wanted]:
    """Have something break off behind its first change, then, with another adapter, behind its second, to its end."""
    for change in range(1, 30):
        wanted = serving.wanted()
        if before is not None:
            await before(wanted)
        serving.breaking.at, serving.breaking.changes = change, 0
        await doing(wanted)
        ended = serving.breaking.changes < change
        serving.breaking.at = -1
        yield wanted
        if ended:
            assert change > 1 or (serving.row.is_a_folder and before is not None)
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("kind", [FaultKind.ERROR_AFTER_CREATE, FaultKind.TIMEOUT_AFTER_CREATE])
async def test_an_answer_that_is_lost_can_be_asked_for_again(serving: Serving, kind: FaultKind) -> None:
    wanted = serving.wanted()
    serving.fail(kind, 1.0)
    assert isinstance(await serving.tried(wanted), ResourceUnavailable)
    await serving.running(wanted)
    check_once(serving, wanted)
    await serving.cleared(wanted.name)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(FaultKind.NO_CAPACITY, NoCapacity), (FaultKind.OUT_OF_CREDIT, InsufficientCredits)],
)
async def test_what_the_platform_cannot_give_is_told_apart_and_costs_nothing(
    serving: Serving, kind: FaultKind, expected: type[StudioError]
) -> None:
    wanted = serving.wanted()
    serving.fail(kind)
    error = await serving.tried(wanted)
    assert type(error) is expected, error
    assert serving.hosting.ledger() == []
    await serving.cleared(wanted.name)


async def test_a_key_that_is_revoked_is_refused_everywhere(serving: Serving) -> None:
    wanted = serving.wanted()
    running = await serving.running(wanted)
    serving.fail(FaultKind.REVOKED_KEY)
    host = serving.host
    calls = [host.names, lambda: host.look(wanted.name), lambda: host.remove(wanted.name)]
    calls += [lambda: host.deploy(serving.wanted())]
    if not serving.row.asks_with_own_key:
        calls += [lambda: host.ask(running, PROMPT, chat=False, max_tokens=2, temperature=0.0)]
    for call in calls:
        with pytest.raises(CredentialRefused) as caught:
            await call()
        assert caught.value.details["platform"] == serving.row.name
    assert serving.hosting.deployed(wanted.name) is not None


async def test_what_is_asked_too_often_is_asked_again_while_there_is_patience(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.RATE_LIMIT)
    with pytest.raises(RateLimitExceeded) as caught:
        await serving.host.deploy(wanted)
    assert caught.value.details["retry_after_seconds"] >= 1
    serving.fail(FaultKind.RATE_LIMIT)
    await serving.host_with(patience=5.0).deploy(wanted)
    check_once(serving, wanted)


async def test_what_loads_slowly_is_deploying_until_it_runs(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.SLOW_BOOT, 0.4)
    assert (await serving.host.deploy(wanted)).status == "deploying"
    await serving.becomes(wanted.name, "running")


async def test_what_never_loads_is_deploying_until_it_is_taken_off(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.ENDLESS_BOOT)
    await serving.host.deploy(wanted)
    await serving.becomes(wanted.name, "deploying")
    await serving.cleared(wanted.name)


async def test_what_fails_while_it_loads_has_failed_in_the_platforms_words(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.FAILS_LOADING)
    await serving.host.deploy(wanted)
    assert (await serving.becomes(wanted.name, "failed")).reason
    await serving.cleared(wanted.name)


async def test_a_list_that_lags_makes_nothing_twice(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.LIST_LAG, 0.4)
    for _ in range(3):
        await serving.tried(wanted)

    async def deployed() -> bool | None:
        return await serving.tried(wanted) is None or None

    await eventually(deployed)
    await serving.running(wanted)
    check_once(serving, wanted)
    await serving.cleared(wanted.name)


async def test_a_name_that_is_taken_by_nobody_who_is_seen_is_no_deployment(serving: Serving) -> None:
    wanted = serving.wanted()
    serving.fail(FaultKind.NAME_TAKEN)
    assert isinstance(await serving.tried(wanted), ResourceUnavailable)
    await serving.cleared(wanted.name)


async def test_what_it_costs_is_the_price_of_all_replicas(serving: Serving) -> None:
    replicas = min(2, serving.host.limits.replicas)
    wanted = serving.wanted(min_replicas=replicas, max_replicas=replicas)
    running = await serving.running(wanted)
    [bill] = serving.hosting.ledger()
    assert bill.replicas == replicas and (bill.cost > 0) is serving.host.limits.bills
    expected = pytest.approx(replicas * bill.hourly_rate) if serving.row.tells_rate else None
    assert running.hourly_rate == expected
    await serving.cleared(wanted.name)
    [bill] = serving.hosting.ledger()
    assert bill.gone is not None


async def test_how_busy_it_is_is_told_by_the_platform_or_not_at_all(serving: Serving) -> None:
    host, running = serving.host, await serving.running(serving.wanted())
    if serving.row.name != "fireworks":  # whose page is looked at every half minute
        await host.metrics(running)
    for _ in range(3):
        await host.ask(running, PROMPT, chat=False, max_tokens=5, temperature=0.0)
    found = await host.metrics(running)
    if not serving.row.counts:
        assert found is None
        return
    assert found is not None and found.measured_by is MeasuredBy.PLATFORM
    assert found.requests_per_minute == 3 and found.cost_per_hour is None
    assert found.avg_latency_ms == (250.0 if serving.row.tells_latency else None)


async def test_what_a_platform_does_not_take_is_refused_before_anything_is_made(serving: Serving) -> None:
    wanted = serving.wanted()
    refused: list[Wanted] = []
    if serving.host.limits.published:
        refused.append(wanted.model_copy(update={"repository": None, "commit": None}))
    if serving.host.limits.instance_types:
        refused.append(serving.wanted(instance_type="no-such-machine"))
    for one in refused:
        with pytest.raises(InvalidConfig) as caught:
            serving.host.check(one)
            await serving.host.deploy(one)
        assert caught.value.details["field"] in ("adapter_id", "instance_type")
        await serving.host.remove(one.name)
    assert serving.hosting.left() == []


async def test_a_platform_that_is_away_is_unavailable(serving: Serving) -> None:
    host = serving.row.host(serving.row.account("http://127.0.0.1:9"), 0.1, 1.0)
    calls = (host.deploy(serving.wanted()), host.names(), host.look("a"), host.remove("a"))
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, ResourceUnavailable) for error in said), said


@pytest.mark.parametrize("key", [CANARY, BROKE])
async def test_a_key_of_no_use_is_told_so_and_is_in_no_error(serving: Serving, key: str) -> None:
    if not serving.row.has_key:
        pytest.skip(f"{serving.row.name} knows no keys")
    host = serving.host_with(key)
    for call in (host.names, lambda: host.deploy(serving.wanted()), lambda: host.look("pst-none")):
        with pytest.raises((CredentialRefused, InsufficientCredits)) as caught:
            await call()
        assert key not in f"{caught.value!r} {caught.value.details} {caught.value.__cause__}"
    assert key not in repr(host)
    assert serving.hosting.left() == []


async def test_the_key_is_in_no_error_and_nothing_that_is_shown(serving: Serving) -> None:
    for kind in FaultKind.ERROR_AFTER_CREATE, FaultKind.NO_CAPACITY, FaultKind.OUT_OF_CREDIT, FaultKind.NAME_TAKEN:
        if kind in serving.row.impossible:
            continue
        wanted = serving.wanted()
        serving.fail(kind)
        error = await serving.tried(wanted)
        assert isinstance(error, StudioError) and GOOD not in f"{error!r} {error.details}"
    running = await serving.running(serving.wanted())
    seen = [f"{one.path} {one.query} {one.answered!r}" for one in serving.exchanges]
    seen += [] if serving.row.sends_key else [repr(one.sent) for one in serving.exchanges]
    assert all(GOOD not in text for text in [*seen, repr(serving.host), repr(running)])


def check_once(serving: Serving, wanted: Wanted) -> None:
    """Check that nothing was made twice."""
    left = [thing for thing in serving.hosting.left() if thing.endswith(wanted.name)]
    assert len(left) == len(set(left)) and f"deployment {wanted.name}" in left
