"""The promotion gate: what passes, what does not, and which gates are refused before anything is trained."""

from typing import Any

import numpy as np
import pytest

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.bootstrap import compare
from peft_studio.evaluation.comparison import Bootstrap, Measure, ModelComparison
from peft_studio.plan import DatasetFacts, RowFormat
from peft_studio.promotion import DeployIf, Promotion, decide
from peft_studio.promotion_rules import check_gate


def loss(low: float | None, high: float | None) -> dict[str, ModelComparison]:
    """An adapter whose loss is 0.1 less than its base model's, as sure as that is."""
    return {"loss": ModelComparison(base=2, adapter=1.9, difference=-0.1, low=low, high=high, rows=40, better="lower")}


def chrf(low: float, high: float) -> dict[str, ModelComparison]:
    return {"chrf": ModelComparison(base=20, adapter=30, difference=10, low=low, high=high, rows=40, better="higher")}


@pytest.mark.parametrize(
    ("rule", "found", "allowed"),
    [
        ({}, loss(-0.15, -0.05), True),
        ({}, loss(-0.15, 0.0), True),
        ({}, loss(-0.25, 0.05), False),  # better on average, but not for certain
        ({"min_gain": -0.1}, loss(-0.25, 0.05), True),
        ({"min_gain": 0.04}, loss(-0.15, -0.05), True),
        ({"min_gain": 0.06}, loss(-0.15, -0.05), False),
        ({}, loss(None, None), False),
        ({}, {}, False),
        ({"measure": "chrf", "min_gain": 5}, chrf(6, 14), True),
        ({"measure": "chrf", "min_gain": 5}, chrf(4, 16), False),
        ({"measure": "chrf"}, loss(-0.15, -0.05), False),
    ],
)
def test_an_adapter_passes_where_its_gain_is_certain(
    rule: dict[str, Any], found: dict[str, ModelComparison], allowed: bool
) -> None:
    promotion = decide(DeployIf(**rule), found, 0.95)
    assert promotion.allowed is allowed
    assert promotion.is_refused is not allowed
    assert promotion.comparison == found.get(promotion.rule.measure)
    assert str(promotion.rule.measure) in promotion.reason
    assert Promotion.model_validate_json(promotion.model_dump_json()) == promotion


def test_the_reason_says_what_was_found_and_what_was_asked_for() -> None:
    reason = decide(DeployIf(min_gain=0.06), loss(-0.15, -0.05), 0.95).reason
    assert "gain in loss is 0.1 on 40 held-out rows, with 0.95 confidence at least 0.05; at least 0.06" in reason
    assert "hold out more rows" in decide(DeployIf(), loss(None, None), 0.95).reason


@pytest.mark.parametrize(("min_gain", "allowed"), [(0, True), (-0.1, True), (1e-9, False), (0.1, False)])
def test_where_no_row_differs_nothing_is_worse_nor_better_and_the_verdict_says_so(
    min_gain: float, allowed: bool
) -> None:
    never_met = compare(Measure.EXACT_MATCH, np.zeros(40), np.zeros(40), Bootstrap())
    assert never_met and never_met.differing == 0
    promotion = decide(DeployIf(measure=Measure.EXACT_MATCH, min_gain=min_gain), {"exact_match": never_met}, 0.95)
    assert promotion.allowed is allowed
    assert "No row differs in exact_match" in promotion.reason and "no gain" in promotion.reason


def test_one_row_that_differs_is_told_from_none() -> None:
    one = compare(Measure.EXACT_MATCH, np.zeros(40), np.eye(40)[0], Bootstrap())
    assert one and one.differing == 1
    assert "No row differs" not in decide(DeployIf(measure=Measure.EXACT_MATCH), {"exact_match": one}, 0.95).reason


def gated(rule: dict[str, Any], rows: int = 100, layout: RowFormat = RowFormat.MESSAGES, **config: Any) -> None:
    dataset = DatasetFacts(path="d", sha256="0" * 64, format=layout, rows=rows, bytes=5, characters=9)
    deploy = {"platform": "local", "only_if": rule}
    check_gate(TrainingConfig(base_model="m", dataset_path="d", deploy=deploy, **config), dataset)


@pytest.mark.parametrize(
    ("rule", "changes", "field"),
    [
        ({}, {"rows": 40}, "validation_split"),
        ({}, {"validation_split": 0}, "validation_split"),
        ({"measure": "perplexity"}, {"objective": "dpo"}, "deploy.only_if.measure"),
        ({}, {"objective": "orpo"}, "deploy.only_if.measure"),
        ({}, {"objective": "simpo", "objective_options": {"cpo_alpha": 0.5}}, "deploy.only_if.measure"),
        ({"measure": "accuracy"}, {"objective": "grpo", "layout": RowFormat.PROMPT}, "deploy.only_if.measure"),
        ({"measure": "rougeL"}, {"layout": RowFormat.TEXT}, "deploy.only_if.measure"),
        ({"measure": "rougeL"}, {"objective": "grpo", "layout": RowFormat.PROMPT}, "deploy.only_if.measure"),
        ({"measure": "chrf"}, {"evaluation": {"generation_rows": 4}}, "evaluation.generation_rows"),
    ],
)
def test_a_gate_that_could_never_be_passed_is_refused_with_the_field(
    rule: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    if changes.get("objective") == "grpo":
        changes = changes | {"grpo": {"rewards": [{"function": "json"}]}}
    with pytest.raises(InvalidConfig) as refused:
        gated(rule, **changes)
    assert refused.value.details["field"] == field
    assert refused.value.details["issue"] in refused.value.message


@pytest.mark.parametrize("measure", list(Measure))
def test_any_measure_of_supervised_fine_tuning_can_be_asked_for(measure: Measure) -> None:
    gated({"measure": measure})


@pytest.mark.parametrize(
    ("objective", "measures"),
    [
        ("dpo", ("loss", "accuracy", "exact_match")),
        ("kto", ("loss", "accuracy", "chrf")),
        ("simpo", ("loss", "accuracy", "rougeL")),
        ("orpo", ("accuracy", "exact_match")),
        ("grpo", ("loss",)),
    ],
)
def test_what_is_known_of_each_row_can_be_asked_for(objective: str, measures: tuple[str, ...]) -> None:
    more: dict[str, Any] = {"grpo": {"rewards": [{"function": "json"}]}} if objective == "grpo" else {}
    layout = RowFormat.PROMPT if objective == "grpo" else RowFormat.PREFERENCE
    for measure in measures:
        gated({"measure": measure}, layout=layout, objective=objective, **more)


def test_a_gate_that_is_refused_for_its_measure_names_those_that_would_do() -> None:
    with pytest.raises(InvalidConfig, match="use one of accuracy, exact_match"):
        gated({}, objective="orpo", layout=RowFormat.PREFERENCE)
