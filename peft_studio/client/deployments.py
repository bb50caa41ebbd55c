"""Deployments: adapters behind endpoints."""

from typing import Any

from peft_studio.answers import Deleted, Deployment, DeploymentCreated, DeploymentList, DeploymentTested
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.deployments import DeploymentConfig

_ANSWERING_SECONDS = 300.0


class DeploymentOperations:
    """Serve adapters, try them out, and stop serving them."""

    @operation
    def create_deployment(
        self,
        adapter_id: str,
        platform: str = "local",
        config: DeploymentConfig | dict[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Call[DeploymentCreated]:
        """Put an adapter behind an endpoint; ``get_deployment`` has the endpoint when its status is ``running``."""
        if isinstance(config, DeploymentConfig):
            config = config.model_dump(mode="json", exclude_unset=True)
        body = {"adapter_id": adapter_id, "platform": platform, "config": config or {}}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return Call("POST", "/deployments", model(DeploymentCreated), json=body, headers=headers)

    @operation
    def get_deployment(self, deployment_id: str) -> Call[Deployment]:
        """Return a deployment as it is now."""
        return Call("GET", path("deployments", deployment_id), model(Deployment))

    @operation
    def list_deployments(
        self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Call[DeploymentList]:
        """Return deployments, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        return Call("GET", "/deployments", model(DeploymentList), {"status": status, "limit": limit, "cursor": cursor})

    @operation
    def test_deployment(
        self, deployment_id: str, prompt: str, *, max_tokens: int | None = None, temperature: float | None = None
    ) -> Call[DeploymentTested]:
        """Have a deployment answer a prompt."""
        given = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature}
        body = {name: value for name, value in given.items() if value is not None}
        where = path("deployments", deployment_id, "test")
        return Call("POST", where, model(DeploymentTested), json=body, seconds=_ANSWERING_SECONDS)

    @operation
    def renew_deployment(self, deployment_id: str, lease_hours: float | None = None) -> Call[Deployment]:
        """Have a deployment served for so many hours from now; by default as long as was asked for at first."""
        body = {} if lease_hours is None else {"lease_hours": lease_hours}
        return Call("POST", path("deployments", deployment_id, "renew"), model(Deployment), json=body)

    @operation
    def delete_deployment(self, deployment_id: str, *, force: bool = False) -> Call[Deleted]:
        """
        Stop serving; the adapter is kept.

        ``force`` has one forgotten, with an admin's key, that the studio cannot take off: see to it at its platform.
        """
        return Call("DELETE", path("deployments", deployment_id), model(Deleted), {"force": "true"} if force else {})
