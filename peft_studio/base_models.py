"""Base models before any of their weights are loaded: what one is, wherever it lies, and what can be adapted in it."""

import os
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr

from peft_studio.algorithms import Targets
from peft_studio.config import ModelSource, TrainingConfig
from peft_studio.errors import ResourceUnavailable
from peft_studio.model_files import (
    TEMPLATES,
    Shapes,
    facts_of,
    folder_facts,
    is_whole,
    no_safetensors,
    read_config,
    refuse_model,
    require_tokenizer,
    require_writer,
    template_hash,
)
from peft_studio.plan import ModelFacts

_MOST_NAMED = 5  # of the names in an error; a request may hold very many
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
UNTRAINABLE = {
    ModelSource.CIVITAI: "Civitai holds image models, no language models in the Hugging Face layout",
    ModelSource.OLLAMA: "Ollama holds quantized GGUF files, no trainable weights in the Hugging Face layout",
}


@dataclass(frozen=True)
class Hub:
    """A model hub; the defaults are huggingface_hub's own (``HF_ENDPOINT``, ``HF_HOME``), the token is ``HF_TOKEN``."""

    endpoint: str | None = None
    cache_dir: str | None = None
    timeout_seconds: float = 10
    token: SecretStr | None = None

    @property
    def url(self) -> str:
        """The hub's address, read from the environment at the moment of use."""
        return (self.endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @property
    def key(self) -> str | None:
        """The token in clear; None leaves it to the environment."""
        return self.token.get_secret_value() if self.token else None


class _HubDown(Exception):
    """The hub did not answer, or not sensibly."""


def inspect_model(
    base_model: str,
    source: ModelSource = ModelSource.HUGGINGFACE,
    revision: str | None = None,
    hub: Hub | None = None,
    encoders: bool = False,
) -> ModelFacts:
    """
    Say what a base model is from its configuration and headers alone: a folder if there is one, else a hub's.

    A hub model's revision is resolved to its commit. Where the hub does not answer, a whole copy in its local cache
    serves; without one ``ResourceUnavailable`` is raised. A model that cannot be trained raises ``InvalidConfig``, and
    so does one that writes no text, unless ``encoders`` are wanted too.
    """
    if source in UNTRAINABLE:
        raise refuse_model(f"{UNTRAINABLE[source]}; use model_source huggingface or local", field="model_source")
    if exists_here(base_model):
        facts = _local(base_model, Path(base_model), revision)
        return facts if encoders else require_writer(facts)
    if source is ModelSource.LOCAL:
        raise refuse_model(f"there is no folder {base_model!r} on the machine that runs the studio")
    return inspect_on_hub(base_model, revision, hub or Hub(), encoders)


def exists_here(base_model: str) -> bool:
    """Whether a base model's name is a path on this machine, which then means no hub's model."""
    try:
        return Path(base_model).exists()
    except (OSError, ValueError):
        return False


def is_hub_id(base_model: str) -> bool:
    """Whether a name could be a hub's model: ``name`` or ``owner/name``."""
    return bool(_HUB_ID.fullmatch(base_model)) and ".." not in base_model and "--" not in base_model


def check_names(config: TrainingConfig, facts: ModelFacts) -> None:
    """Raise ``InvalidConfig`` if the configuration names layers or modules that the model does not have."""
    for field, named in (
        ("target_modules", config.target_modules or []),
        ("rank_pattern", config.rank_pattern),
        ("alpha_pattern", config.alpha_pattern),
    ):
        _require(
            field, "linear layer", named, facts.modules if _goes_elsewhere(config) else facts.linear_modules, facts
        )
    _require("modules_to_save", "module", config.modules_to_save or [], facts.modules, facts)
    beyond = [n for n in config.layers_to_transform or [] if facts.layers is not None and n >= facts.layers]
    if beyond:
        raise refuse_model(
            f"{facts.id!r} has the layers 0 to {(facts.layers or 0) - 1}, no {min(beyond)}", field="layers_to_transform"
        )


def _goes_elsewhere(config: TrainingConfig) -> bool:
    return config.method.targets is not Targets.LINEAR


def _require(field: str, kind: str, named: Iterable[str], known: list[str], facts: ModelFacts) -> None:
    unknown = [*dict.fromkeys(name for name in named if name.split(".")[-1] not in known)]
    if unknown:
        names, choice = ", ".join(map(repr, unknown[:_MOST_NAMED])), ", ".join(known)
        if (more := len(unknown) - _MOST_NAMED) > 0:
            names += f" and {more} more"
        raise refuse_model(f"{facts.id!r} has no {kind} {names}; it has {choice}", field=field)


def _local(name: str, path: Path, revision: str | None) -> ModelFacts:
    if not path.is_dir():
        raise refuse_model(f"{name!r} is a file; name the folder that holds config.json and the weights")
    try:
        facts = folder_facts(name, path.resolve())
    except OSError as error:
        raise refuse_model(f"{name!r} cannot be read: {error.strerror}") from None
    if revision not in (None, facts.revision):
        raise refuse_model(
            f"the files in {name!r} are revision {facts.revision}, not {revision!r}; leave the field out for a folder",
            field="model_revision",
        )
    return facts


def inspect_on_hub(name: str, revision: str | None, hub: Hub, encoders: bool = False) -> ModelFacts:
    """Do as ``inspect_model`` does, whatever folder of that name there may be here."""
    facts = _on_hub(name, revision, hub)
    return facts if encoders else require_writer(facts)


def _on_hub(name: str, revision: str | None, hub: Hub) -> ModelFacts:
    # The cache looks branches up as files by this name.
    if revision and (".." in revision or revision.startswith("/")):
        raise refuse_model(f"{revision!r} is no commit, tag or branch", field="model_revision")
    try:
        with _hub_errors(name, revision, hub):
            return _ask(name, revision, hub)
    except _HubDown as reason:
        if folder := _cached(name, revision, hub):
            return folder_facts(name, folder, folder.name)
        raise ResourceUnavailable(
            f"base_model: the hub at {hub.url} cannot be reached ({reason}), and {name!r} is not whole in its local "
            "cache; try again later, or give a local folder",
            field="base_model",
        ) from reason.__cause__


def _ask(name: str, revision: str | None, hub: Hub) -> ModelFacts:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=hub.url, token=hub.key).model_info(name, revision=revision, timeout=hub.timeout_seconds)
    if info.sha is None:
        raise _HubDown("it named no commit")
    if folder := _cached(name, info.sha, hub):
        return folder_facts(name, folder, info.sha)
    files = frozenset(sibling.rfilename for sibling in info.siblings or [])
    license = info.card_data.get("license") if info.card_data else None
    return _remote(name, info.sha, files, license if isinstance(license, str) else None, hub)


@lru_cache(maxsize=256)
def _remote(name: str, commit: str, files: frozenset[str], license: str | None, hub: Hub) -> ModelFacts:
    """Fetch a commit's small files and the headers of its weights; a commit never changes, so once is enough."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    wanted = ("config.json", "adapter_config.json", "tokenizer_config.json", *TEMPLATES)
    fetched = {
        file: Path(
            hf_hub_download(name, file, revision=commit, cache_dir=hub.cache_dir, endpoint=hub.url, token=hub.key)
        )
        for file in wanted
        if file in files
    }
    folder = next(iter(fetched.values())).parent if fetched else Path(name)
    config = read_config(folder, name)
    if not files.intersection(("model.safetensors", "model.safetensors.index.json")):
        raise no_safetensors(name, any(file.endswith((".bin", ".pt", ".pth")) for file in files))
    require_tokenizer(name, files)
    api = HfApi(endpoint=hub.url, token=hub.key)
    weights = api.get_safetensors_metadata(name, revision=commit, timeout=hub.timeout_seconds)
    shapes: Shapes = {
        tensor: entry.shape for file in weights.files_metadata.values() for tensor, entry in file.tensors.items()
    }
    return facts_of(name, commit, config, shapes, template=template_hash(folder), license=license, path=None)


def _cached(name: str, revision: str | None, hub: Hub) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, cache_dir=hub.cache_dir, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if is_whole(folder) else None


@contextmanager
def _hub_errors(name: str, revision: str | None, hub: Hub) -> Generator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise refuse_model(
            f"{name!r} is gated: accept its conditions at {hub.url}/{name}, "
            "then set HF_TOKEN to a token of the account that did"
        ) from None
    except errors.RepositoryNotFoundError:
        raise refuse_model(
            f"there is no folder {name!r} here and no model of that name on {hub.url} "
            "(private ones need HF_TOKEN); check the spelling"
        ) from None
    except errors.RevisionNotFoundError:
        raise refuse_model(f"{name!r} has no revision {revision!r}", field="model_revision") from None
    except errors.HFValidationError:
        raise refuse_model(f"{name!r} is neither a folder here nor a hub's model id (name, or owner/name)") from None
    except errors.SafetensorsParsingError:
        raise refuse_model(f"the safetensors files of {name!r} on {hub.url} cannot be read") from None
    except errors.HfHubHTTPError as error:
        hint = "; check HF_TOKEN" if error.response.status_code in (401, 403) else ""
        raise _HubDown(f"it answered {error.response.status_code}{hint}") from error
    except (httpx2.HTTPError, OSError) as error:
        raise _HubDown(type(error).__name__) from error
