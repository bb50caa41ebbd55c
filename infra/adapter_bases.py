"""The base model that an adapter needs, wherever the adapter came from; and how prompts are laid out for it."""

from infra.settings import Settings
from infra.uploaded_adapters import UploadedAdapters
from peft_studio.adapters import Adapter
from peft_studio.base_models import inspect_model
from peft_studio.plan import ModelFacts, Plan


def base_of(adapter: Adapter, uploads: UploadedAdapters, settings: Settings) -> tuple[ModelFacts, bool]:
    """Return the base model that an adapter needs, and whether prompts go through the chat template."""
    if record := uploads.get(adapter.id):
        facts = inspect_model(adapter.base_model, revision=record.sent.model_revision)
        return facts, facts.has_chat_template if record.sent.chat is None else record.sent.chat
    plan = settings.run_dir(str(adapter.job_id)).read("plan.json", Plan)
    if plan is not None:
        return plan.model, plan.is_chat
    facts = inspect_model(adapter.base_model)  # the run directory is gone: what the model is now has to do
    return facts, facts.has_chat_template
