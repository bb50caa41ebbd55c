"""
The doors of all platforms: what each says to a key that is good, unknown, out of credit or asked too often.

Below ``/NAME`` lies what the platform's usual address stands for. Bodies follow the vendors' documents where those show
them; where they do not (an account out of credit, mostly), the shape is assumed from their other errors.
"""

import base64
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from infra.simulators import grpc
from infra.simulators.exchange import App, Asked, Reply, application

GOOD, BROKE, BUSY = "good-key-of-a-simulator", "broke-key", "busy-key"


def _reply(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(body, status, headers or {})


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
                return _reply(200, self.good)
            case key if key == BROKE:
                return self.broke
            case key if key == BUSY:
                return _reply(429, {"error": "Too many requests"}, {"Retry-After": "7"})
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


def _written(headers: Mapping[str, str]) -> str:
    return headers.get("x-trackio-write-token", "")


def _either(headers: Mapping[str, str]) -> str:
    return _bearer(headers) or _basic(headers)


def _problem(status: int, title: str, detail: str) -> Reply:
    headers = {"Content-Type": "application/problem+json"}
    return _reply(status, {"title": title, "status": status, "detail": detail}, headers)


def _error(status: int, message: str, **more: Any) -> Reply:
    return _reply(status, {"error": {"message": message, "type": "error", "param": None, "code": None} | more})


def _lambda(status: int, code: str) -> Reply:
    return _reply(status, {"error": {"code": code, "message": "No.", "suggestion": "See the dashboard."}})


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
        _reply(404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
        _reply(402, {"success": False, "error": "insufficient_credit", "msg": "Top up."}),
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
        _reply(401, {"error": "Invalid username or password."}),
        _reply(402, {"error": "Payment required"}),
        _bearer,
    ),
    "kubernetes": Door(
        "GET",
        "/apis/batch/v1/namespaces/default/jobs",
        {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": []},
        _reply(401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401}),
        _reply(402, {"kind": "Status", "status": "Failure", "code": 402}),
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
        _reply(401, {"error": "unauthorized"}),
        _reply(402, {"error": "no credits"}),
        _bearer,
    ),
    "fireworks": Door(
        "GET",
        "/v1/accounts",
        {"accounts": []},
        _reply(401, {"code": 16, "message": "unauthenticated", "details": []}),
        _reply(412, {"code": 9, "message": "account is suspended", "details": []}),
        _bearer,
    ),
    # By gRPC: the answer is an empty list.
    "modal": Door(
        "POST",
        "/AppList",
        grpc.answered(b"").body,
        grpc.failed(grpc.UNAUTHENTICATED, "Token validation failed"),
        grpc.failed(grpc.RESOURCE_EXHAUSTED, "Workspace billing cycle spend limit reached"),
        lambda headers: headers.get("x-modal-token-secret", ""),
    ),
    "wandb": Door(
        "POST",
        "/graphql",
        {"data": {"viewer": {"username": "alice", "entity": "alice"}}},
        _reply(200, {"data": {"viewer": None}}),
        _reply(402, {"errors": [{"message": "payment required"}]}),
        _basic,
    ),
    "mlflow": Door(
        "POST",
        "/api/2.0/mlflow/experiments/search",
        {"experiments": [{"experiment_id": "0", "name": "Default"}]},
        _reply(401, None),
        _reply(402, {"error_code": "PERMISSION_DENIED", "message": "payment required"}),
        _either,
    ),
    "comet": Door(
        "GET",
        "/account-details",
        {"userName": "alice", "defaultWorkspaceName": "alice"},
        _reply(401, {"msg": "invalid api key", "code": 401, "sdk_error_code": 401}),
        _reply(402, {"msg": "payment required", "code": 402}),
        _bare,
    ),
    "trackio": Door(
        "POST",
        "/api/get_run_mutation_status",
        {"data": {"spaces": False, "allowed": True, "auth": "local"}},
        _reply(200, {"data": {"spaces": False, "allowed": False, "auth": "none"}}),
        _reply(402, {"error": "payment required"}),
        _written,
    ),
    "civitai": Door(
        "GET",
        "/me",
        {"id": 9, "username": "alice"},
        _reply(401, {"error": "Unauthorized"}),
        _reply(402, {"error": "Payment required"}),
        _bearer,
    ),
    # Any server that somebody runs: it knows no account that could be out of credit.
    "vllm": Door(
        "GET",
        "/v1/models",
        {"object": "list", "data": []},
        _reply(401, {"error": "Unauthorized"}),
        _reply(402, {"error": "Payment Required"}),
        _bearer,
    ),
    "lorax": Door(
        "GET",
        "/info",
        {"model_id": "org/model", "model_dtype": "torch.float16", "version": "0.1.0"},
        _reply(401, {"error": "Unauthorized"}),
        _reply(402, {"error": "Payment Required"}),
        _bearer,
    ),
    "ollama": Door("GET", "/api/version", {"version": "0.14.0"}, _reply(500, {}), _reply(500, {}), lambda _: GOOD),
}


def create_accounts(revoked: Container[str] = ()) -> App:
    """Make the application; platforms in ``revoked``, which may change meanwhile, refuse their good key, too."""

    async def answer(asked: Asked) -> Reply:
        _, platform, *_ = [*asked.path.split("/"), ""]
        door = DOORS.get(platform)
        if door is None or asked.path != f"/{platform}{door.path}":
            return _reply(404, {"error": "not found"})
        if asked.method != door.method:
            return _reply(405, {"error": "method not allowed"})
        return door.refused if platform in revoked else door.reply(asked.headers)

    return application(answer)


def platform_urls(address: str) -> dict[str, str]:
    """Return the setting that leads a studio to the simulators at an address."""
    return {name: f"{address}/{name}" for name in DOORS}
