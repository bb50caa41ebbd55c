"""One file per section of the contract; a new one is named here and nowhere else."""

from api import documentation
from api.routes import (
    adapters,
    budgets,
    datasets,
    deployments,
    experiments,
    exports,
    health,
    job_control,
    job_history,
    jobs,
    keys,
    live,
    machines,
    models,
    openai_files,
    openai_jobs,
    openai_models,
    platforms,
    registries,
    rendezvous,
    resources,
    schedules,
    sweeps,
    tickets,
)

AT_ROOT = {
    "Health": health.ROUTES,
    "Live": live.ROUTES,
    "Documentation": documentation.ROUTES,
    "OpenAI": [*openai_files.ROUTES, *openai_jobs.ROUTES, *openai_models.ROUTES],
}
BELOW_API = {
    "Jobs": [*jobs.ROUTES, *job_control.ROUTES, *job_history.ROUTES, *registries.OF_JOBS],
    "Sweeps": sweeps.ROUTES,
    "Schedules": schedules.ROUTES,
    "Data sets": datasets.ROUTES,
    "Platforms": platforms.ROUTES,
    "Models": models.ROUTES,
    "Resources": resources.ROUTES,
    "Machines": machines.ROUTES,
    "Budgets": budgets.ROUTES,
    "Adapters": [*adapters.ROUTES, *registries.OF_ADAPTERS],
    "Exports": exports.ROUTES,
    "Experiments": experiments.ROUTES,
    "Deployments": deployments.ROUTES,
    "Live": tickets.ROUTES,
    "Keys": keys.ROUTES,
    "Rendezvous": rendezvous.ROUTES,
}
