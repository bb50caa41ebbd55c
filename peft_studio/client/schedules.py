"""Schedules."""

from typing import Any

from pydantic import BaseModel

from peft_studio.answers import Deleted
from peft_studio.client.calls import Call, model, operation, part, path
from peft_studio.schedules import Schedule, ScheduleChanges, ScheduleConfig


class ScheduleOperations:
    """Make, change, pause, resume and delete schedules."""

    @operation
    def create_schedule(
        self, schedule: ScheduleConfig | dict[str, Any], *, idempotency_key: str | None = None
    ) -> Call[Schedule]:
        """Check a configuration, and have it become a job whenever its time comes."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return Call("POST", "/schedules", model(Schedule), json=_plain(schedule), headers=headers)

    @operation
    def get_schedule(self, schedule_id: str) -> Call[Schedule]:
        """Return a schedule: when it runs next, and what became of its last runs."""
        return Call("GET", path("schedules", schedule_id), model(Schedule))

    @operation
    def list_schedules(self) -> Call[list[Schedule]]:
        """Return all schedules, oldest first."""
        return Call("GET", "/schedules", part("schedules", list[Schedule]))

    @operation
    def change_schedule(self, schedule_id: str, changes: ScheduleChanges | dict[str, Any]) -> Call[Schedule]:
        """Change what is given of a schedule, and leave the rest; this key's budget pays from then on."""
        return Call("PATCH", path("schedules", schedule_id), model(Schedule), json=_plain(changes))

    @operation
    def pause_schedule(self, schedule_id: str) -> Call[Schedule]:
        """Have a schedule not run until it is resumed."""
        return Call("POST", path("schedules", schedule_id, "pause"), model(Schedule))

    @operation
    def resume_schedule(self, schedule_id: str) -> Call[Schedule]:
        """Have a schedule run again; this key's budget pays from then on."""
        return Call("POST", path("schedules", schedule_id, "resume"), model(Schedule))

    @operation
    def delete_schedule(self, schedule_id: str) -> Call[Deleted]:
        """Forget a schedule; jobs that it has started go on."""
        return Call("DELETE", path("schedules", schedule_id), model(Deleted))


def _plain(given: ScheduleConfig | ScheduleChanges | dict[str, Any]) -> dict[str, Any]:
    return given.model_dump(mode="json", exclude_unset=True) if isinstance(given, BaseModel) else given
