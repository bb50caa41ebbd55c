"""The Python clients against the real API on loopback; every test is run with the blocking and the asynchronous one."""

import threading
import time

import pytest

from infra.simulators.accounts import create_accounts
from peft_studio.client import Client
from peft_studio.config import TrainingConfig
from peft_studio.errors import (
    AuthenticationFailed,
    Conflict,
    CredentialRefused,
    InternalError,
    InvalidConfig,
    JobNotFound,
    NotFound,
    PermissionDenied,
    RateLimitExceeded,
    ResourceUnavailable,
    Unreachable,
)
from peft_studio.events import Log, Metrics, Status
from peft_studio.jobs import Job, JobStatus
from tests.integration.api.studio_in_memory import CONFIG
from tests.integration.clients.conftest import Either
from tests.integration.clients.lossy import NEVER, Cable
from tests.integration.clients.served import Served, eventful, served
from tests.loopback import on_loopback

NOWHERE = "http://127.0.0.1:9"


def test_a_job_is_submitted_found_and_cancelled(studio: Either, api: Served) -> None:
    created = studio.ask(api.url, "create_job", CONFIG)
    assert (created.status, created.estimated_cost) == (JobStatus.PENDING, 2.5)
    job = studio.ask(api.url, "get_job", created.job_id)
    assert isinstance(job, Job) and job.config.base_model == "org/model"
    assert job.job_id in [one.job_id for one in studio.ask(api.url, "list_jobs", status="pending", limit=100).jobs]
    cancelled = studio.ask(api.url, "cancel_job", job.job_id)
    assert (cancelled.success, cancelled.status) == (True, JobStatus.CANCELLED)


def test_a_configuration_is_sent_as_it_was_written(studio: Either, api: Served) -> None:
    config = TrainingConfig.model_validate(CONFIG | {"rank": 4, "project_name": "größer"})
    job = studio.ask(api.url, "get_job", studio.ask(api.url, "create_job", config).job_id)
    assert job.config == config


def test_a_platforms_refusal_is_told_from_a_bad_key(studio: Either, api: Served) -> None:
    with on_loopback(create_accounts()) as platforms, pytest.raises(CredentialRefused) as refused:
        studio.ask(api.url, "connect_platform", "wandb", {"api_key": "wrong", "base_url": f"{platforms}/wandb"})
    assert refused.value.details == {"platform": "wandb", "field": "credentials.api_key"}


@pytest.mark.parametrize(
    ("asked", "key", "error"),
    [
        (("get_job", "job_0"), "writes", JobNotFound),
        (("get_job", "../../etc/passwd"), "writes", NotFound),
        (("get_job", "job_0"), "unknown", AuthenticationFailed),
        (("create_job", CONFIG), "reads", PermissionDenied),
        (("create_job", CONFIG | {"rank": 0}), "writes", InvalidConfig),
        (("get_logs", "job_0", -1), "writes", InvalidConfig),
    ],
)
def test_a_refusal_is_raised_as_the_error_of_its_code(
    studio: Either, api: Served, asked: tuple[object, ...], key: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        studio.ask(api.url, *asked, key=key)  # pyright: ignore
    assert type(refused.value) is error


def test_a_refusal_says_what_is_wrong_and_where(studio: Either, api: Served) -> None:
    with pytest.raises(InvalidConfig) as refused:
        studio.ask(api.url, "create_job", CONFIG | {"learning_rate": 5})
    assert refused.value.details["field"] == "learning_rate"
    assert refused.value.details["issue"]
    assert refused.value.message


def test_events_are_followed_to_the_final_status_or_from_a_cursor(studio: Either, api: Served) -> None:
    job = eventful(api.jobs)
    events = studio.follow(api.url, job.job_id)
    assert [event.metrics["step"] for event in events if isinstance(event, Metrics)] == list(range(1, 11))
    assert isinstance(events[-2], Log) and events[-2].message.endswith("完成")
    assert isinstance(events[-1], Status) and events[-1].status is JobStatus.COMPLETED
    assert studio.follow(api.url, job.job_id, after=events[5].cursor) == events[6:]


def test_a_follower_goes_on_where_it_was_cut_off(studio: Either, api: Served, cable: Cable) -> None:
    job = eventful(api.jobs)
    cable.cuts = [(NEVER, 600), (NEVER, 100), (0, 0), (NEVER, 400)]
    events = studio.follow(cable.url, job.job_id)
    assert events == studio.follow(api.url, job.job_id)
    assert cable.connections == 5


@pytest.mark.parametrize(
    ("job_id", "key", "error"), [("job_0", "reads", JobNotFound), ("", "no", AuthenticationFailed)]
)
def test_a_follower_is_told_why_it_is_refused(
    studio: Either, api: Served, job_id: str, key: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"\w+ \w+"):
        studio.follow(api.url, job_id or api.jobs.add().job_id, key=key)


def test_a_follower_with_too_many_sockets_is_told_so(studio: Either) -> None:
    with served(connections_per_key=1) as api, Client(api.url, "writes") as other:
        job = eventful(api.jobs)
        del api.jobs.events[job.job_id][-1]
        api.jobs.jobs[job.job_id] = job.model_copy(update={"status": JobStatus.RUNNING})
        watching = other.follow(job.job_id)
        next(watching)
        with pytest.raises(RateLimitExceeded, match="WebSockets"):
            studio.follow(api.url, job.job_id)
        watching.close()


def test_lost_connections_are_made_again_and_a_job_is_created_once(studio: Either, api: Served, cable: Cable) -> None:
    before = len(api.jobs.jobs)
    cable.cuts = [(0, 0), (NEVER, 0), (NEVER, 20)]  # before, and twice after the studio has done what was asked
    created = studio.ask(cable.url, "create_job", CONFIG)
    assert cable.connections == 4
    assert len(api.jobs.jobs) == before + 1
    assert created.job_id in api.jobs.jobs


def test_a_key_of_ones_own_makes_another_call_the_same(studio: Either, api: Served) -> None:
    first, second = (studio.ask(api.url, "create_job", CONFIG, idempotency_key=f"mine-{studio}") for _ in range(2))
    assert first.job_id == second.job_id
    third = studio.ask(api.url, "create_job", CONFIG)
    assert third.job_id != first.job_id


def test_a_studio_that_is_away_is_named_after_the_last_attempt(studio: Either) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 cannot be reached") as lost:
        studio.ask(NOWHERE, "list_jobs", repeats=1)
    assert isinstance(lost.value, ResourceUnavailable)


def test_trouble_of_a_moment_is_waited_out(studio: Either, api: Served) -> None:
    api.jobs.trouble = RuntimeError("passing")
    timer = threading.Timer(0.3, lambda: setattr(api.jobs, "trouble", None))
    timer.start()
    try:
        assert studio.ask(api.url, "list_jobs", repeats=5).jobs
    finally:
        timer.join()
        api.jobs.trouble = None


def test_trouble_that_stays_is_raised(studio: Either, api: Served) -> None:
    api.jobs.trouble = RuntimeError("hunter2")
    try:
        with pytest.raises(InternalError) as told:
            studio.ask(api.url, "list_jobs", repeats=1)
    finally:
        api.jobs.trouble = None
    assert told.value.details["reference"]
    assert "hunter2" not in str(told.value)


def test_the_limit_of_requests_is_waited_for_as_long_as_the_studio_says(studio: Either) -> None:
    with served(requests_per_minute=1) as api:
        studio.ask(api.url, "list_jobs")
        with pytest.raises(RateLimitExceeded) as told:
            studio.ask(api.url, "list_jobs", repeats=0)
        assert 0 < told.value.details["retry_after_seconds"] <= 60


def test_a_conflict_is_not_tried_again(studio: Either, api: Served) -> None:
    job = eventful(api.jobs)
    began = time.monotonic()
    with pytest.raises(Conflict):
        studio.ask(api.url, "cancel_job", job.job_id)
    assert time.monotonic() - began < 5


def test_an_answer_that_is_something_else_is_said_to_be(studio: Either, api: Served) -> None:
    with pytest.raises(InternalError, match="not one that this client understands"):
        studio.ask(f"{api.url}/docs?", "list_jobs")


def test_experiments_are_listed_and_compared_by_what_is_asked_for(studio: Either, api: Served) -> None:
    project = TrainingConfig.model_validate(CONFIG | {"project_name": f"compared by {type(studio).__name__}"})
    for loss, accuracy in ((0.3, 0.9), (0.2, 0.8)):
        metrics = {"final_loss": loss, "accuracy": accuracy}
        api.jobs.add(config=project, status=JobStatus.COMPLETED, metrics=metrics, cost=0.72)
    page = studio.ask(api.url, "list_experiments", project=project.project_name, status="completed")
    worse, better = page.experiments
    assert studio.ask(api.url, "get_experiment", better.id) == better
    compared = studio.ask(api.url, "compare_experiments", [better.id, worse.id])
    assert (compared.metric, compared.direction, compared.best_performer) == ("accuracy", "maximize", better.id)
    assert compared.cost_analysis.cost_per_accuracy_point == [0.008, 0.009]
    by_loss = studio.ask(api.url, "compare_experiments", [better.id, worse.id], metric="loss", curves=[])
    assert (by_loss.best_performer, by_loss.curves) == (worse.id, {})
