"""
The doors of all platforms: what each says to a key that is good, unknown, out of credit or asked too often.

Below ``/NAME`` lies what the platform's usual address stands for. Bodies follow the vendors' documents where those show
them; where they do not (an account out of credit, mostly), the shape is assumed from their other errors.
"""

import base64
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from litestar import Litestar, Request, route
from litestar.response import Response

GOOD, BROKE, BUSY = "good-key-of-a-simulator", "broke-key", "busy-key"


@dataclass(frozen=True)
class Reply:
    """What a platform answers."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Door:
    """One request of a platform, and its answers by the key; ``key_of`` finds the key in the request's headers."""

    method: str
    path: str
    good: Any
    refused: Reply
    broke: Reply
    key_of: Callable[[Mapping[str, str]], str]

    def reply(self, headers: Mapping[str, str]) -> Reply:
        """Answer by the key."""
        match self.key_of(headers):
            case key if key == GOOD:
                return Reply(200, self.good)
            case key if key == BROKE:
                return self.broke
            case key if key == BUSY:
                return Reply(429, {"error": "Too many requests"}, {"Retry-After": "7"})
            case _:
                return self.refused


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def _basic(headers: Mapping[str, str]) -> str:
    scheme, _, pair = headers.get("authorization", "").partition(" ")
    return base64.b64decode(pair).decode().partition(":")[2] if scheme == "Basic" else ""


def _bare(headers: Mapping[str, str]) -> str:
    return headers.get("authorization", "")


def _either(headers: Mapping[str, str]) -> str:
    return _bearer(headers) or _basic(headers)


def _problem(status: int, title: str, detail: str) -> Reply:
    return Reply(status, {"title": title, "status": status, "detail": detail})


def _error(status: int, message: str, **more: Any) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "error", "param": None, "code": None} | more})


def _lambda(status: int, code: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": "No.", "suggestion": "See the dashboard."}})


_POOR = _error(402, "Credit limit exceeded")
DOORS = {
    "runpod": Door(
        "GET",
        "/v2/pods",
        {"pods": []},
        _problem(401, "Unauthorized", "invalid bearer token"),
        _problem(402, "Payment Required", "insufficient balance"),
        _bearer,
    ),
    "lambda": Door(
        "GET",
        "/instance-types",
        {"data": {}},
        _lambda(401, "global/invalid-api-key"),
        _lambda(403, "global/account-inactive"),
        _bearer,
    ),
    "vast": Door(
        "GET",
        "/users/current/",
        {"id": 7, "email": "a@example.com", "balance": 3.5},
        Reply(404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
        Reply(402, {"success": False, "error": "insufficient_credit", "msg": "Top up."}),
        _bearer,
    ),
    "huggingface": Door(
        "GET",
        "/api/whoami-v2",
        {
            "type": "user",
            "id": "u1",
            "name": "alice",
            "auth": {"type": "access_token", "accessToken": {"role": "read"}},
        },
        Reply(401, {"error": "Invalid username or password."}),
        Reply(402, {"error": "Payment required"}),
        _bearer,
    ),
    "kubernetes": Door(
        "GET",
        "/apis/batch/v1/namespaces/default/jobs",
        {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": []},
        Reply(401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401}),
        Reply(402, {"kind": "Status", "status": "Failure", "code": 402}),
        _bearer,
    ),
    "together": Door("GET", "/v1/projects", {"data": []}, _error(401, "Invalid API key"), _POOR, _bearer),
    "replicate": Door(
        "GET",
        "/account",
        {"type": "user", "username": "alice", "name": "Alice"},
        _problem(401, "Unauthenticated", "You did not pass a valid token."),
        _problem(402, "Payment required", "Set up billing."),
        _bearer,
    ),
    "predibase": Door(
        "GET",
        "/v2/deployments",
        {"data": []},
        Reply(401, {"error": "unauthorized"}),
        Reply(402, {"error": "no credits"}),
        _bearer,
    ),
    "fireworks": Door(
        "GET",
        "/v1/accounts",
        {"accounts": []},
        Reply(401, {"code": 16, "message": "unauthenticated", "details": []}),
        Reply(412, {"code": 9, "message": "account is suspended", "details": []}),
        _bearer,
    ),
    "wandb": Door(
        "POST",
        "/graphql",
        {"data": {"viewer": {"username": "alice", "entity": "alice"}}},
        Reply(200, {"data": {"viewer": None}}),
        Reply(402, {"errors": [{"message": "payment required"}]}),
        _basic,
    ),
    "mlflow": Door(
        "POST",
        "/api/2.0/mlflow/experiments/search",
        {"experiments": [{"experiment_id": "0", "name": "Default"}]},
        Reply(401, None),
        Reply(402, {"error_code": "PERMISSION_DENIED", "message": "payment required"}),
        _either,
    ),
    "comet": Door(
        "GET",
        "/account-details",
        {"userName": "alice", "defaultWorkspaceName": "alice"},
        Reply(401, {"msg": "invalid api key", "code": 401, "sdk_error_code": 401}),
        Reply(402, {"msg": "payment required", "code": 402}),
        _bare,
    ),
    "civitai": Door(
        "GET",
        "/me",
        {"id": 9, "username": "alice"},
        Reply(401, {"error": "Unauthorized"}),
        Reply(402, {"error": "Payment required"}),
        _bearer,
    ),
    "ollama": Door("GET", "/api/version", {"version": "0.14.0"}, Reply(500, {}), Reply(500, {}), lambda _: GOOD),
}


def create_accounts(revoked: Container[str] = ()) -> Litestar:
    """Make the application; platforms in ``revoked``, which may change meanwhile, refuse their good key, too."""

    @route("/{platform:str}/{rest:path}", http_method=["GET", "POST"])
    async def knock(request: Request[Any, Any, Any]) -> Response[Any]:
        platform = request.path_params["platform"]
        door = DOORS.get(platform)
        # The path as it was sent: at one of the platforms the slash at its end matters.
        path = request.scope["raw_path"].decode().partition("?")[0].removeprefix(f"/{platform}")
        if door is None or path != door.path:
            return Response({"error": "not found"}, status_code=404)
        if request.method != door.method:
            return Response({"error": "method not allowed"}, status_code=405)
        reply = door.refused if platform in revoked else door.reply(request.headers)
        return Response(reply.body, status_code=reply.status, headers=dict(reply.headers))

    return Litestar([knock], logging_config=None, openapi_config=None)


def platform_urls(address: str) -> dict[str, str]:
    """Return the setting that leads a studio to the simulators at an address."""
    return {name: f"{address}/{name}" for name in DOORS}
