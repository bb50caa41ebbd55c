"""What planning finds out about base models and data sets: once each, however many jobs are planned together."""

from typing import Any

from infra.datasets.store import DatasetStore
from infra.hubs.local import find as find_model
from infra.settings import Settings
from peft_studio import datasets
from peft_studio.base_models import exists_here, inspect_model
from peft_studio.config import ModelSource, Objective, TrainingConfig
from peft_studio.errors import InvalidConfig, NotFound
from peft_studio.plan import DatasetFacts, ModelFacts
from peft_studio.stored_datasets import is_dataset_id


class Facts:
    """Looks at files and asks hubs, in the caller's thread; what it has found it knows from then on."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._models: dict[Any, ModelFacts] = {}
        self._datasets: dict[Any, DatasetFacts] = {}

    def model(self, config: TrainingConfig) -> ModelFacts:
        """Find out about a job's base model."""
        key = config.base_model, config.model_source, config.model_revision, config.aim.writes
        if key not in self._models:
            self._models[key] = _model(config, self._settings)
        return self._models[key]

    def dataset(self, config: TrainingConfig) -> DatasetFacts:
        """Find out about a job's data set, which is read from end to end."""
        key = config.dataset_path, tuple(sorted(config.columns.items())), config.objective
        if key not in self._datasets:
            self._datasets[key] = _dataset(config, self._settings)
        return self._datasets[key]


def _model(config: TrainingConfig, settings: Settings) -> ModelFacts:
    """Find out about the base model; a local one goes by its folder's path, or by the id that searching shows."""
    named = config.model_source is ModelSource.LOCAL and not exists_here(config.base_model)
    folder = find_model(config.base_model, settings) if named else None
    name, encoders = str(folder or config.base_model), not config.aim.writes
    facts = inspect_model(name, config.model_source, config.model_revision, encoders=encoders)
    return facts.model_copy(update={"id": config.base_model}) if folder else facts


def _dataset(config: TrainingConfig, settings: Settings) -> DatasetFacts:
    """Find out about the data set; one of the studio's store was read through when it was uploaded."""
    if not is_dataset_id(config.dataset_path):
        return datasets.inspect(config.dataset_path, config.columns, config.objective)
    try:
        facts = DatasetStore(settings).get(config.dataset_path).facts
        if config.objective is Objective.SFT and facts.format in config.aim.formats and not config.columns:
            return facts
        return datasets.inspect(facts.path, config.columns, config.objective)
    except NotFound:
        issue = f"there is no data set {config.dataset_path!r} in the studio; upload it first"
        raise InvalidConfig.of("dataset_path", issue) from None
