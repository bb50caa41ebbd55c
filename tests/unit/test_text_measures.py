"""Measures of written answers: as the libraries find them, and as can be worked out by hand."""

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from peft_studio.evaluation.comparison import GENERATED, Measure
from peft_studio.evaluation.texts import Words, measure_texts

ANSWERS = ["the cat sat on the mat", "Paris", "", "a red house, with blue doors"]
REFERENCES = ["a cat sat on a mat", "Paris", "something", "The red house with the blue doors."]


def test_rouge_is_that_of_the_library_on_what_its_own_tokenizer_reads() -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    found = measure_texts(ANSWERS, REFERENCES)
    for place, (answer, reference) in enumerate(zip(ANSWERS, REFERENCES, strict=True)):
        scores = scorer.score(reference, answer)
        for measure in (Measure.ROUGE1, Measure.ROUGE2, Measure.ROUGE_L):
            assert found[measure][place] == pytest.approx(scores[measure].fmeasure)


def test_chrf_is_that_of_sacrebleu() -> None:
    found = measure_texts(ANSWERS, REFERENCES)[Measure.CHRF]
    expected = [
        sacrebleu.sentence_chrf(*pair).score for pair in zip(ANSWERS, ([one] for one in REFERENCES), strict=True)
    ]
    assert found.tolist() == expected
    assert found[1] == pytest.approx(100)


def test_measures_worked_out_by_hand() -> None:
    found = {name: values[0] for name, values in measure_texts(["the cat sat here"], ["the cat sat"]).items()}
    assert found[Measure.EXACT_MATCH] == 0
    assert found[Measure.ROUGE1] == pytest.approx(2 * (3 / 4) * 1 / (3 / 4 + 1))  # 3 of 4 words are right, none missed
    assert found[Measure.ROUGE2] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert found[Measure.ROUGE_L] == pytest.approx(found[Measure.ROUGE1])


@pytest.mark.parametrize(
    ("answer", "reference", "matches"),
    [("42", " 42\n", True), ("42", "42.", False), ("Yes", "yes", False), ("", "", True), ("a  b", "a b", False)],
)
def test_an_exact_match_heeds_all_but_white_space_at_the_ends(answer: str, reference: str, matches: bool) -> None:
    assert measure_texts([answer], [reference])[Measure.EXACT_MATCH].tolist() == [float(matches)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Grüße aus Köln", ["grüße", "aus", "köln"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("我爱AI模型", ["我", "爱", "ai", "模", "型"]),
        ("snake_case 3.14", ["snake", "case", "3", "14"]),
        ("…", []),
    ],
)
def test_words_are_found_in_any_writing(text: str, words: list[str]) -> None:
    assert Words().tokenize(text) == words


def test_a_right_answer_that_is_not_in_latin_letters_is_worth_all() -> None:
    found = measure_texts(["Привет, мир"], ["привет мир"])
    assert found[Measure.ROUGE2].tolist() == [1.0]


def test_no_answers_are_worth_nothing_known() -> None:
    assert {name: len(values) for name, values in measure_texts([], []).items()} == dict.fromkeys(GENERATED, 0)


def test_an_empty_answer_is_worth_nothing() -> None:
    assert all(np.array_equal(values, [0.0]) for values in measure_texts([""], ["something"]).values())
