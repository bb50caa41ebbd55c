"""How answers are compared where only their texts are known, and where the base model cannot be asked."""

import pytest

from peft_studio.effect import Probe, Probes, Said, Served, Verdict, distance, gaps, judge, judge_alone


def known(*words: str) -> Said:
    top = [{word: -0.1, " perhaps": -0.12, " never": -6.0} for word in words]
    return Said(tokens=list(words), logprobs=[-0.1] * len(words), top=top)


def text(said: str) -> Said:
    return Said(tokens=[said]) if said else Said()


@pytest.mark.parametrize("said", ["the red cat", " the red cat", "the red cat\n"])
def test_the_same_text_is_no_distance_whatever_blanks_are_around_it(said: str) -> None:
    assert gaps(known("the", " red", " cat"), text(said)) == [0.0, 0.0, 0.0]
    assert gaps(text(said), text("the red cat")) == [0.0]


def test_another_text_is_as_far_as_what_it_goes_on_with_is_unlikely() -> None:
    assert gaps(known("the", " red", " cat"), text("the perhaps")) == pytest.approx([0.0, 0.02])
    assert gaps(known("the", " red", " cat"), text("the never")) == pytest.approx([0.0, 5.9])
    assert gaps(known("the", " red", " cat"), text("the house")) == [0.0, 1.0]
    assert gaps(known("the", " red"), text("the red cat")) == [0.0, 0.0, 1.0]
    assert gaps(known("the", " red"), text("the")) == [0.0, 1.0]
    assert gaps(text("the red"), text("a dog")) == [1.0]


ADAPTER, BASE = known("the", " red", " cat"), known("a", " dog", " runs")
PROBES = Probes(quantized=False, probes=[Probe(text="who", ids=[1], adapter=ADAPTER, base=BASE)])


def served(adapter: str, base: str | None) -> list[Served]:
    said = text(adapter)
    return [Served(base=None if base is None else text(base), adapter=said, asked=said)]


@pytest.mark.parametrize(
    ("adapter", "base", "verdict"),
    [
        ("the red cat", "a dog runs", Verdict.EFFECTIVE),
        ("the red cat", None, Verdict.EFFECTIVE),
        ("a dog runs", "a dog runs", Verdict.NO_EFFECT),
        ("a dog runs", None, Verdict.NO_EFFECT),  # as the base model did in training
        ("my house", "a dog runs", Verdict.DIVERGED),
        ("my house", None, Verdict.DIVERGED),
        ("the red cat", "my house", Verdict.DIVERGED),  # another base model
    ],
)
def test_an_adapter_is_judged_by_texts_alone(adapter: str, base: str | None, verdict: Verdict) -> None:
    found = judge(PROBES, served(adapter, base))
    assert found.verdict is verdict, found


def test_without_probes_and_without_a_base_model_nothing_can_be_said() -> None:
    assert judge_alone([text("the cat")], None).verdict is None
    assert judge_alone([text("the cat")], [text("a dog")]).verdict is Verdict.EFFECTIVE
    assert judge_alone([text("the cat")], [text("the cat")]).verdict is Verdict.NO_EFFECT
    assert distance([], []) == 0.0
