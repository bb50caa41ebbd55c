"""One list of experiments of several sources, newest first: where each of its pages begins."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ValidationError

from peft_studio.errors import InvalidConfig
from peft_studio.experiments import Experiment


class Cursor(BaseModel):
    """Behind which job the next page goes on, and behind which time elsewhere; ``seen`` are those of that very time."""

    job: str | None = None
    before: datetime | None = None
    seen: list[str] = []

    def encode(self) -> str:
        """Return the cursor as text that goes into an address as it is."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> "Cursor":
        """Read a cursor, or one of a list of jobs alone; raises ``InvalidConfig``."""
        if text is None:
            return cls()
        if text.startswith("job_"):
            return cls(job=text)
        try:
            return cls.model_validate(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
        except (ValueError, ValidationError):
            raise InvalidConfig(
                "This is not a cursor of this list.", field="cursor", issue="Send one you received"
            ) from None


@dataclass(frozen=True)
class Merged:
    """A page, and where the next one begins."""

    experiments: list[Experiment]
    next_cursor: str | None


def merge(
    jobs: Sequence[Experiment], more_jobs: bool, elsewhere: Sequence[Experiment], limit: int, cursor: Cursor
) -> Merged:
    """Make a page of the newest; ``more_jobs`` tells whether there are jobs behind those given."""
    others = [one for one in elsewhere if one.id not in cursor.seen]
    every = sorted([*jobs, *others], key=lambda one: one.created_at, reverse=True)
    page = every[:limit]
    if len(every) <= limit and not more_jobs and len(elsewhere) < limit:
        return Merged(page, None)
    if not page:
        return Merged(page, None)
    last = page[-1].created_at
    job = next((one.id for one in reversed(page) if one.job_id), None)
    shown = next((one.job_id for one in reversed(page) if one.id == job), None) if job else cursor.job
    seen = [one.id for one in page if one.created_at == last]
    following = Cursor(job=shown, before=last, seen=[*seen, *(cursor.seen if last == cursor.before else [])])
    return Merged(page, following.encode())
