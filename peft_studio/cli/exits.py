"""
How a command ends.

    0    done
    1    the studio failed
    2    the request was refused, or the command was wrongly called
    3    the job failed
    4    the job was cancelled
    5    no valid API key, or one that may not do this
    6    the studio is away or busy: try again later
    130  interrupted
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from peft_studio.errors import (
    AuthenticationFailed,
    CredentialRefused,
    InternalError,
    PermissionDenied,
    RateLimitExceeded,
    StudioError,
    Unreachable,
)

JOB_FAILED, JOB_CANCELLED = 3, 4
INTERRUPTED = 130
_OF_ERROR: dict[type[StudioError], int] = {
    InternalError: 1,
    CredentialRefused: 2,  # a platform's, not the studio's key
    AuthenticationFailed: 5,
    PermissionDenied: 5,
    RateLimitExceeded: 6,
    Unreachable: 6,
}


def exit_code(error: StudioError) -> int:
    """Return the code that an error ends a command with."""
    return next((_OF_ERROR[kind] for kind in type(error).__mro__ if kind in _OF_ERROR), 2)


def explain(error: StudioError) -> str:
    """Say what went wrong, in one line, and below it every field that is wrong and what to do."""
    details = error.details
    lines = [f"peft-studio: {error.message}"]
    listed: Any = details.get("errors")
    issues = cast("Iterable[Mapping[str, Any]]", listed) if isinstance(listed, list) and listed else [details]
    lines += [_issue(issue) for issue in issues if issue.get("issue") and str(issue["issue"]) not in error.message]
    if hint := details.get("hint"):
        lines.append(f"  {hint}")
    if upload := details.get("upload_id"):
        lines.append(f"  Go on with: --resume {upload}")
    return "\n".join(lines)


def _issue(issue: Mapping[str, Any]) -> str:
    row = f", row {issue['row']}" if "row" in issue else ""
    return f"  {issue['field']}{row}: {issue['issue']}" if "field" in issue else f"  {issue['issue']}"
