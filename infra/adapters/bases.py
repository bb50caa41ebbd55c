"""The base model that an adapter needs, wherever the adapter came from; and how prompts are laid out for it."""

from pathlib import Path

from infra.adapters.uploaded import UploadedAdapters
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.base_models import inspect_model
from peft_studio.errors import InvalidConfig
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


def usable_base(adapter: Adapter, uploads: UploadedAdapters, settings: Settings) -> ModelFacts:
    """Find an adapter's base model; raises ``InvalidConfig`` where it is gone, or is another than it was."""
    try:
        model, _ = base_of(adapter, uploads, settings)
    except InvalidConfig as error:
        raise _refused(f"its base model cannot be used ({error.message})") from error
    _check_base(model)
    return model


def _check_base(model: ModelFacts) -> None:
    """Raise ``InvalidConfig`` where the folder of the base model is gone, or has other files than when it was used."""
    if model.path is None:
        return
    if not Path(model.path).is_dir():
        raise _refused(f"its base model is gone: there is no folder {model.path}")
    if model.revision and len(model.revision) == 40:
        return  # a commit in the hub's cache, which never changes
    if inspect_model(model.path, encoders=True).revision != model.revision:
        raise _refused(f"the files of its base model in {model.path} have changed since it was trained")


def _refused(issue: str) -> InvalidConfig:
    return InvalidConfig.of("adapter_id", issue)
