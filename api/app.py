"""
The application: ``uvicorn --factory api.app:create_app``.

With it go ``--ws api.socket_protocol:SocketProtocol --http api.request_protocol:RequestProtocol``. Uvicorn logs the
addresses of WebSockets, which may hold tickets, as information: have it log warnings only.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.middleware import ASGIMiddleware
from litestar.types import ControllerRouterHandler

from api import routes
from api.auth import Authentication, Authenticator, role_allows
from api.dependencies import Control, Coordination, Jobs, Keys, RunsOfAdapters, provide
from api.entrance import Entrance, answer_ahead, cross_origin
from api.errors import respond
from api.idempotency import Idempotency, provide_idempotency_key
from api.limits import OpenSockets, RateLimit, Shared
from api.openapi import describe_idempotency, openapi_config, openapi_document
from api.wire import Wire
from infra.adapters.records import AdapterRecords
from infra.adapters.reproduction import Reproductions
from infra.adapters.store import sweep_deleted
from infra.adapters.uploaded import UploadedAdapters
from infra.api_keys import KeyRing, records_in
from infra.budget_reads import ReadFromDatabase
from infra.budgets import Budgets, BudgetsInPrefect
from infra.credentials import CredentialsInPrefect, CredentialStore
from infra.datasets.previews import Previews
from infra.datasets.stored import Datasets
from infra.deploying.deployments import AdapterDeployments
from infra.deploying.dismissals import Dismissals
from infra.deploying.guard import DeploymentGuard
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRunsInPrefect
from infra.evaluations.evaluations import AdapterEvaluations
from infra.evaluations.runs import EvaluationRunsInPrefect
from infra.experiments.records import Experiments
from infra.exports.exports import AdapterExports
from infra.exports.runs import ExportRunsInPrefect
from infra.flow_runs import FlowRuns
from infra.hubs.search import Models, all_hubs
from infra.hyperparameters.runs import SweepRunsInPrefect
from infra.hyperparameters.sweeps import Sweeps
from infra.jobs.control import JobControl
from infra.jobs.history import JobHistory
from infra.jobs.overrides import Overrides, ResultsInPrefect
from infra.kept_answers import KeptAnswers
from infra.machines.account_guard import AccountGuard
from infra.machines.offers import OfferBook, offer_book
from infra.machines.reads import Machines
from infra.machines.settling import MachinesInPrefect
from infra.planning.job_plans import JobPlans
from infra.platforms.connections import Platforms
from infra.prefect_database import PrefectDatabase
from infra.registries.publisher import Publisher
from infra.resources import Resources
from infra.schedules.records import SchedulesInPrefect
from infra.schedules.schedules import Schedules
from infra.serving.local import LocalDeployments
from infra.serving.records import Deployments, DeploymentsInPrefect
from infra.settings import Settings
from infra.settings import settings as settings_of_process
from infra.tickets import Tickets
from infra.trackers.runs import TrackerRuns
from infra.uploads import Uploads


def create_app(
    jobs: Jobs | None = None,
    keys: Keys | None = None,
    settings: Settings | None = None,
    deployments: Deployments | None = None,
    control: Control | None = None,
    credentials: CredentialStore | None = None,
    budgets: Budgets | None = None,
    machines: Machines | None = None,
    coordination: Coordination | None = None,
    runs: RunsOfAdapters | None = None,
) -> Litestar:
    """Put the API together; what is not given is the real thing, set up from the environment."""
    settings = settings or settings_of_process()
    database = PrefectDatabase(settings.database_url)
    keys = keys or KeyRing(records_in(database))
    uploads, uploaded = Uploads(settings), UploadedAdapters(settings)
    records, credentials = deployments or DeploymentsInPrefect(database=database), credentials or CredentialsInPrefect()
    machines = machines or MachinesInPrefect(database, settings)
    kept = BudgetsInPrefect(ReadFromDatabase(database), settings)
    platforms = _platforms(credentials, settings, machines, records)
    publisher, offers = Publisher(credentials, settings, uploaded.weights_hash), offer_book(settings, credentials)
    watched = [] if jobs else [offers.keep_fresh]  # with jobs of a test's there is no Prefect to ask
    jobs = jobs or FlowRuns(settings, database, offers, kept)
    authenticator = Authenticator(keys, Tickets(settings.data_dir / "tickets"), settings.wrong_keys_per_minute)
    app = Litestar(
        _routers(),
        dependencies={
            **_given(jobs=jobs, control=control or JobControl(settings, jobs, kept), settings=settings),
            **_given(uploads=uploads, uploaded_adapters=uploaded, budgets=budgets or kept),
            **_given(platforms=platforms, machines=machines, publisher=publisher),
            **_readers(jobs, settings, platforms, credentials, offers),
            **_coordinated(coordination or _in_prefect(database, settings), jobs, settings, platforms, offers),
            **_adapters(jobs, uploaded, records, settings, platforms, credentials, runs or _runs_in_prefect(database)),
            **_callers(keys, authenticator, settings),
        },
        middleware=_layers(authenticator, settings),
        guards=[role_allows],
        before_request=answer_ahead,
        exception_handlers={Exception: respond},
        request_max_body_size=settings.max_body_bytes,
        plugins=[Wire()],
        openapi_config=openapi_config(),
        cors_config=cross_origin(settings.origins),
        logging_config=None,
        lifespan=[lambda _: uploads.swept()],
        on_startup=[uploaded.sweep, partial(sweep_deleted, settings), publisher.resume, *watched],
        on_shutdown=[publisher.close, offers.close, keys.close, jobs.close, database.close],
    )
    return _behind_entrance(app)


def _behind_entrance(app: Litestar) -> Litestar:
    app.asgi_handler = Entrance(app)
    describe_idempotency(app)
    return app


def _layers(authenticator: Authenticator, settings: Settings) -> list[ASGIMiddleware]:
    """What every request that needs a key goes through, the outermost first."""
    answers = KeptAnswers(settings.data_dir / "idempotency")
    return [Authentication(authenticator), RateLimit(settings.requests_per_minute), Idempotency(answers)]


def _given(**objects: Any) -> dict[str, Provide]:
    return {name: provide(given) for name, given in objects.items()}


def _callers(keys: Keys, authenticator: Authenticator, settings: Settings) -> dict[str, Provide]:
    """What knows callers, and what they have asked for before."""
    waits = settings.socket_send_seconds, settings.socket_ping_seconds
    return {
        **_given(keys=keys, tickets=authenticator.tickets, authenticator=authenticator),
        "sockets": provide(OpenSockets(settings.connections_per_key, *waits)),
        "idempotency_key": provide_idempotency_key(),
    }


def _platforms(credentials: CredentialStore, settings: Settings, machines: Machines, records: Deployments) -> Platforms:
    """Platforms, none of which is let go of while something of the studio's is there."""
    deployed = DeploymentGuard(records, Hosting(credentials, settings), settings)
    return Platforms(credentials, settings, AccountGuard(machines, settings), deployed)


def _readers(
    jobs: Jobs, settings: Settings, platforms: Platforms, credentials: CredentialStore, offers: OfferBook
) -> dict[str, Provide]:
    """What looks at jobs, data sets, models and machines, and changes nothing of a job."""
    return _given(
        readiness=Shared(jobs.ready),
        credentials=credentials,
        history=JobHistory(jobs, settings),
        plans=JobPlans(settings, platforms, offers),
        reproductions=Reproductions(jobs, settings),
        resources=Resources(jobs, settings, platforms, offers),
        experiments=Experiments(jobs, settings, platforms, TrackerRuns(credentials, settings)),
        models=Models(all_hubs(credentials, settings), settings.model_search_seconds),
        datasets=Datasets(jobs, settings),
        previews=Previews(settings),
    )


def _in_prefect(database: PrefectDatabase, settings: Settings) -> Coordination:
    return Coordination(SweepRunsInPrefect(database, settings), SchedulesInPrefect(database))


def _coordinated(
    kept: Coordination, jobs: Jobs, settings: Settings, platforms: Platforms, offers: OfferBook
) -> dict[str, Provide]:
    """What starts jobs by itself, once it was asked to."""
    plans, experiments = JobPlans(settings, platforms, offers), Experiments(jobs, settings, platforms)
    return _given(
        sweeps=Sweeps(kept.sweeps, plans, experiments, settings),
        schedules=Schedules(kept.schedules, plans, settings),
    )


def _runs_in_prefect(database: PrefectDatabase) -> RunsOfAdapters:
    return RunsOfAdapters(
        ExportRunsInPrefect(database), DeployRunsInPrefect(), EvaluationRunsInPrefect(database), ResultsInPrefect()
    )


def _adapters(
    jobs: Jobs,
    uploaded: UploadedAdapters,
    records: Deployments,
    settings: Settings,
    platforms: Platforms,
    credentials: CredentialStore,
    runs: RunsOfAdapters,
) -> dict[str, Provide]:
    """What keeps adapters, what serves them, and what makes them into something else."""
    adapters = AdapterRecords(jobs, uploaded, LocalDeployments(records), settings)
    exports = AdapterExports(adapters, uploaded, runs.exports, settings, platforms)
    hosting = Hosting(credentials, settings)
    deployments = AdapterDeployments(adapters, uploaded, records, runs.deploying, hosting, exports, settings, platforms)
    return _given(
        adapters=adapters,
        deployments=deployments,
        dismissals=Dismissals(deployments, records, runs.deploying, settings),
        endpoints=deployments,
        exports=exports,
        evaluations=AdapterEvaluations(adapters, uploaded, runs.evaluations, settings),
        overrides=Overrides(jobs, runs.results, deployments, settings),
    )


def _routers() -> list[Router]:
    """Return a router for each section, none within another: Litestar copies a router with all that is in it."""
    document = Router("/api/v1", route_handlers=[openapi_document])
    return [*_sections("/", routes.AT_ROOT), document, *_sections("/api/v1", routes.BELOW_API)]


def _sections(path: str, sections: Mapping[str, Sequence[ControllerRouterHandler]]) -> list[Router]:
    return [Router(path, route_handlers=routes, tags=[name]) for name, routes in sections.items()]
