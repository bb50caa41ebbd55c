"""A judge behind an OpenAI-compatible API: asked twice a row, read, counted, and never given another's key."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.evaluations.judge import compare_answers
from infra.settings import Settings
from infra.simulators.judge import Bench, create_judge, prefers_the_longer
from peft_studio.errors import AuthenticationFailed, InvalidConfig, ResourceUnavailable
from peft_studio.evaluation.comparison import Bootstrap
from peft_studio.evaluation.judging import Pair, verdict_of
from peft_studio.evaluations import Judge, Judged
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
PAIRS = [Pair(f"Question {n}", "right", "no", "a longer answer") for n in range(6)]


async def ask(bench: Bench, pairs: list[Pair] = PAIRS, key: str | None = None, own: bool = True) -> Judged:
    with on_loopback(create_judge(bench)) as url:
        given = {"judge_url": f"{url}/v1", "judge_api_key": SecretStr(key) if key else None} if own else {}
        settings = Settings.model_validate({"data_dir": Path("/nowhere"), **given})
        judge = Judge(model="judge") if own else Judge(model="judge", url=f"{url}/v1")
        return await compare_answers(judge, pairs, Bootstrap(), settings)


async def test_the_answer_that_wins_from_either_place_wins_the_row() -> None:
    bench = Bench()
    found = await ask(bench, [*PAIRS, Pair("?", "", "a long base answer", "no"), Pair("?", "", "same", "also")])
    assert (found.adapter_wins, found.base_wins, found.ties, found.unreadable, found.rows) == (6, 1, 1, 0, 8)
    assert found.win_rate == pytest.approx(6.5 / 8)
    assert found.low is not None and found.low < 6.5 / 8 < (found.high or 0)
    assert len(bench.asked) == 16
    shown = [request["messages"][-1]["content"] for request in bench.asked if "Question 0" in str(request)]
    assert [text.index("a longer answer") < text.index("\nno") for text in sorted(shown)] == [True, False]
    assert all("[Reference answer]\nright" in text for text in shown)
    assert {request["temperature"] for request in bench.asked} == {0}


async def test_a_judge_that_follows_the_place_decides_nothing() -> None:
    found = await ask(Bench(reply=lambda first, second: '{"winner": "A"}'))
    assert (found.adapter_wins, found.base_wins, found.ties, found.win_rate) == (0, 0, 6, 0.5)


@pytest.mark.parametrize("said", ["I cannot say.", '{"winner": "C"}', "", '{"loser": "A"}', "{not json}"])
async def test_a_reply_that_cannot_be_read_is_no_win(said: str) -> None:
    def sometimes(first: str, second: str) -> str:
        return said if first == "no" else prefers_the_longer(first, second)

    found = await ask(Bench(reply=sometimes))
    assert (found.rows, found.unreadable, found.adapter_wins, found.win_rate) == (0, 6, 0, None)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"winner": "A"}', "A"),
        ('Let me think: {"winner": "A"}? No.\n{"winner": "B"}', "B"),
        ('```json\n{ "winner": "Tie" }\n```', "tie"),
        ("A", None),
        ('{"winner": null}', None),
    ],
)
def test_the_last_verdict_of_a_reply_counts(reply: str, verdict: str | None) -> None:
    assert verdict_of(reply) == verdict


async def test_a_busy_judge_is_asked_again() -> None:
    bench = Bench(busy=3)
    assert (await ask(bench, PAIRS[:1])).adapter_wins == 1
    assert bench.busy == 0


async def test_the_studios_key_goes_to_the_studios_judge_alone() -> None:
    bench = Bench(key="sk-judge")
    assert (await ask(bench, key="sk-judge")).adapter_wins == 6
    assert {request["authorization"] for request in bench.asked} == {"Bearer sk-judge"}
    other = Bench()
    with on_loopback(create_judge(other)) as url:
        settings = Settings.model_validate(
            {"data_dir": Path("/nowhere"), "judge_url": "http://127.0.0.1:9/v1", "judge_api_key": "sk-judge"}
        )
        await compare_answers(Judge(model="judge", url=f"{url}/v1"), PAIRS, Bootstrap(), settings)
    assert {request["authorization"] for request in other.asked} == {None}


async def test_a_judge_that_refuses_is_told_of_without_the_key() -> None:
    with pytest.raises(AuthenticationFailed) as refused:
        await ask(Bench(key="another"), key="sk-judge")
    assert "sk-judge" not in str(refused.value) + str(refused.value.details)


async def test_a_judge_that_is_away_may_be_asked_later() -> None:
    settings = Settings(data_dir=Path("/nowhere"))
    with pytest.raises(ResourceUnavailable):
        await compare_answers(Judge(model="judge", url="http://127.0.0.1:9/v1"), PAIRS[:1], Bootstrap(), settings)
    with pytest.raises(InvalidConfig, match="no judge of its own"):
        await compare_answers(Judge(model="judge"), PAIRS, Bootstrap(), settings)


async def test_an_address_that_is_no_api_is_named() -> None:
    with on_loopback(create_judge(Bench())) as url, pytest.raises(InvalidConfig) as refused:
        judge = Judge(model="judge", url=f"{url}/v2")
        await compare_answers(judge, PAIRS[:1], Bootstrap(), Settings(data_dir=Path("/nowhere")))
    assert refused.value.details["field"] == "judge.model"
