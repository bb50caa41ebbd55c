"""Names of what is made at vendors: from them alone it is plain which studio made it, and what for."""

import re

from peft_studio.jobs import PREFIX

_NAME = re.compile(r"pst-(?P<studio>[0-9a-f]{6})-(?P<job>[0-9a-f]{32})-(?P<attempt>[0-9]{1,3})", re.ASCII)

_HOSTED = re.compile(r"pst-(?P<studio>[0-9a-f]{6})-[0-9a-z]{1,20}", re.ASCII)


def hosted_name(studio_id: str, deployment_id: str) -> str:
    """Name a deployment at its platform; at most 31 characters of [a-z0-9-], which every platform takes."""
    return f"pst-{studio_id}-{deployment_id.rpartition('_')[2][:20]}"


def is_hosted_by_studio(name: str, studio_id: str) -> bool:
    """Tell whether a deployment at a platform is one of this studio's."""
    found = _HOSTED.fullmatch(name)
    return found is not None and found["studio"] == studio_id


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
