"""One file per section of the contract; a new one is named here and nowhere else."""

from api.routes import health, jobs, live

AT_ROOT = {"Health": health.ROUTES, "Live": live.ROUTES}
BELOW_API = {"Jobs": jobs.ROUTES}
