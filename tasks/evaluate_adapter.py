"""Measure a stored adapter beside its base model, and have a judge compare what both write."""

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.evaluations.judge import compare_answers
from infra.evaluations.record import EvaluationRecord
from infra.settings import settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.evaluations import EvaluationResult, EvaluationTask, Judge
from peft_studio.trainer.evaluate_adapter import Measured, evaluate_adapter
from tasks.retrying import retry_on

_LONGEST_SECONDS = 24 * 3600


@task(name="measure", cache_policy=NO_CACHE, retries=0, timeout_seconds=_LONGEST_SECONDS)
def measure(wanted: EvaluationTask) -> Measured:
    """Measure both models."""
    return evaluate_adapter(wanted, EvaluationRecord.current().say, settings().harness_tasks)


@task(
    name="judge",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=retry_on(ResourceUnavailable),
    timeout_seconds=_LONGEST_SECONDS,
)
def ask_judge(wanted: EvaluationTask, judge: Judge, found: Measured) -> EvaluationResult:
    """Have a judge compare the answers of both."""
    EvaluationRecord.current().say("judging", 0.9)
    said = asyncio.run(compare_answers(judge, found.pairs, wanted.wanted.bootstrap, settings()))
    return found.result.model_copy(update={"judge": said})
