"""Names of rented machines: from them alone it is plain whose machine it is, and for which job."""

import re

from peft_studio.jobs import PREFIX

_NAME = re.compile(r"pst-(?P<studio>[0-9a-f]{6})-(?P<job>[0-9a-f]{32})-(?P<attempt>[0-9]{1,3})", re.ASCII)


def machine_name(studio_id: str, job_id: str, attempt: int) -> str:
    """Name a job's machine; at most 47 characters of [a-z0-9-], which every vendor takes."""
    return f"pst-{studio_id}-{job_id.removeprefix(PREFIX)}-{attempt}"


def job_of_machine(name: str) -> str | None:
    """Return the job a machine is for, or None for a name that is none of ours."""
    found = _NAME.fullmatch(name)
    return PREFIX + found["job"] if found else None


def is_of_studio(name: str, studio_id: str) -> bool:
    """Tell whether a machine is one of this studio's."""
    found = _NAME.fullmatch(name)
    return found is not None and found["studio"] == studio_id
