"""What a schema cannot tell of a request, and so Schemathesis cannot know: refusals that are none of its failures."""

from itertools import count
from typing import Any

import schemathesis
from schemathesis import Case, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import MissingHeaderNotRejected, RejectedPositiveData

from api.idempotency import HEADER
from api.openapi import IDEMPOTENCY_KEY

# Valid requests that are refused all the same: by operation, the fields that may be at fault.
_CURSORS = ("cursor",)  # which ones were given out
_FITTING = ("",)  # which settings fit each other and the algorithm, and whether model and data are there
_REFUSED: dict[str, tuple[str, ...]] = {
    "GET /api/v1/jobs": _CURSORS,
    "GET /api/v1/datasets": _CURSORS,
    "GET /api/v1/adapters": _CURSORS,
    "GET /api/v1/experiments": _CURSORS,
    "GET /api/v1/deployments": _CURSORS,
    "GET /api/v1/keys": _CURSORS,
    "GET /api/v1/models/search": _CURSORS,
    "GET /api/v1/sweeps": _CURSORS,
    "GET /api/v1/exports": _CURSORS,
    "GET /api/v1/evaluations": _CURSORS,
    "POST /api/v1/evaluations": _FITTING,
    "POST /api/v1/adapters/{adapter_id}/exports": _FITTING,
    # That none is named twice.
    "POST /api/v1/adapters/{adapter_id}/publish": ("registries",),
    "POST /api/v1/jobs/reproduce": _FITTING,
    "POST /api/v1/sweeps": _FITTING,
    "POST /api/v1/schedules": _FITTING,
    "PATCH /api/v1/schedules/{schedule_id}": _FITTING,
    "POST /api/v1/jobs": _FITTING,
    "POST /api/v1/jobs/plan": _FITTING,
    "POST /api/v1/jobs/{job_id}/clone": _FITTING,
    # Which platforms there are, and what each takes and can do.
    "POST /api/v1/platforms/{platform_name}/connect": ("credentials",),
    "POST /api/v1/deployments": ("platform", "auto_scaling", "instance_type", "max_replicas", "min_replicas"),
    # What a file has to be like inside, and what of it is said beside it.
    "POST /api/v1/datasets": ("file", "name", "sha256"),
    "POST /api/v1/adapters/upload": ("file", "metadata", "config"),
    "POST /api/v1/datasets/uploads": ("Upload-Metadata",),
    # An object, in a parameter that is text.
    "GET /api/v1/datasets/{dataset_id}/preview": ("columns",),
    # Which keys there are, and that none is there twice.
    "PUT /api/v1/budgets": ("budgets.",),
    # Which characters can be printed.
    "POST /api/v1/keys": ("name",),
}
_TUS = "/api/v1/datasets/uploads"
_EXAMPLE = next(iter(IDEMPOTENCY_KEY.examples.values())).value
_numbers = count()

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@schemathesis.hook
def before_call(context: Any, case: Case, kwargs: dict[str, Any]) -> None:
    """Have no two requests share the document's example of a key: the second would be refused for it."""
    if case.headers.get(HEADER) == _EXAMPLE:
        case.headers[HEADER] = f"request {next(_numbers)}"


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Case, response: Response) -> bool:
    """Say whether this is a failure."""
    match failure:
        case RejectedPositiveData() if response.status_code == 400:
            field = str(response.json()["error"]["details"].get("field"))
            return not field.startswith(_REFUSED.get(case.operation.label, ()))
        case AcceptedNegativeData() | MissingHeaderNotRejected():
            # tus wants it to be 412, which Schemathesis does not count as a refusal.
            return not (response.status_code == 412 and case.operation.path.startswith(_TUS))
        case _:
            return True
