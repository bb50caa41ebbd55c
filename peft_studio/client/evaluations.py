"""Evaluations: adapters measured beside their base models."""

from typing import Any

from peft_studio.answers import Deleted
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.evaluations import AdapterEvaluation, EvaluationPage, EvaluationWanted


class EvaluationOperations:
    """Evaluate adapters, look at evaluations, stop and delete them."""

    @operation
    def create_evaluation(
        self, wanted: EvaluationWanted | dict[str, Any], *, idempotency_key: str | None = None
    ) -> Call[AdapterEvaluation]:
        """Have an adapter measured; ``get_evaluation`` shows what came of it."""
        if isinstance(wanted, EvaluationWanted):
            wanted = wanted.model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return Call("POST", "/evaluations", model(AdapterEvaluation), json=wanted, headers=headers)

    @operation
    def get_evaluation(self, evaluation_id: str) -> Call[AdapterEvaluation]:
        """Return an evaluation as it is now: how far it is, what came of it, or why it failed."""
        return Call("GET", path("evaluations", evaluation_id), model(AdapterEvaluation))

    @operation
    def list_evaluations(
        self,
        *,
        adapter_id: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[EvaluationPage]:
        """Return evaluations, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        query = {"adapter_id": adapter_id, "status": status, "limit": limit, "cursor": cursor}
        return Call("GET", "/evaluations", model(EvaluationPage), query)

    @operation
    def cancel_evaluation(self, evaluation_id: str) -> Call[AdapterEvaluation]:
        """Stop an evaluation."""
        return Call("POST", path("evaluations", evaluation_id, "cancel"), model(AdapterEvaluation))

    @operation
    def delete_evaluation(self, evaluation_id: str) -> Call[Deleted]:
        """Delete an evaluation that has ended; the adapter is kept."""
        return Call("DELETE", path("evaluations", evaluation_id), model(Deleted))
