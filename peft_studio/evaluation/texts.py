"""How near written answers come to the right ones, by the libraries that others measure with."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rouge_score import rouge_scorer
from sacrebleu.metrics.chrf import CHRF

from peft_studio.evaluation.comparison import GENERATED, Measure

# Thai, kana and ideographs stand for themselves, since no blanks divide their words; of everything else it is runs.
_ALONE = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_ROUGE = {Measure.ROUGE1: "rouge1", Measure.ROUGE2: "rouge2", Measure.ROUGE_L: "rougeL"}


class Words:
    """Divides texts of any language into words; rouge-score's own tokenizer drops all that is not ASCII."""

    def tokenize(self, text: str) -> list[str]:
        """Return a text's words, in small letters."""
        return _WORD.findall(text.lower())


def measure_texts(answers: Sequence[str], references: Sequence[str]) -> dict[Measure, NDArray[np.float64]]:
    """
    Return what each answer is worth by each measure, of shape (rows,).

    ``exact_match`` is 1 where the answer is the reference but for white space at its ends, else 0. ``rouge1``,
    ``rouge2`` and ``rougeL`` are rouge-score's F1, from 0 to 1, without stemming. ``chrf`` is sacrebleu's sentence
    chrF2, from 0 to 100 (nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no).
    """
    rouge, chrf = rouge_scorer.RougeScorer(list(_ROUGE.values()), tokenizer=Words()), CHRF()
    found = {measure: np.zeros(len(answers)) for measure in GENERATED}
    for place, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        found[Measure.EXACT_MATCH][place] = answer.strip() == reference.strip()
        found[Measure.CHRF][place] = chrf.sentence_score(answer, [reference]).score
        scores = rouge.score(reference, answer)
        for measure, name in _ROUGE.items():
            found[measure][place] = scores[name].fmeasure
    return found
