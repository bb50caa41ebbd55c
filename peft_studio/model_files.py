"""What a base model's files say about it: its configuration, its safetensors headers, its tokenizer and its card."""

import hashlib
import json
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml

from peft_studio.errors import InvalidConfig
from peft_studio.model_shapes import TRANSPOSED, Shapes, linear_layers, linear_modules, norm_parameters
from peft_studio.plan import ModelFacts
from peft_studio.safetensors_files import UnsafeFile, read_header

Json = dict[str, Any]

HASHED_WHOLE = 64 << 20
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")
CONTEXT_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
)
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
NOT_WRITERS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForCTC",
)


def refuse_model(issue: str, field: str = "base_model") -> InvalidConfig:
    """Return the error that says what is wrong with the base model."""
    return InvalidConfig.of(field, issue)


def facts_of(
    name: str,
    revision: str,
    config: Json,
    shapes: Shapes,
    *,
    template: str | None,
    license: str | None,
    path: str | None,
) -> ModelFacts:
    """Put a model's facts together; raises ``InvalidConfig`` where it is none that adapters can be trained on."""
    architectures = cast(list[str], config.get("architectures") or [config.get("model_type")])
    architecture = architectures[0]
    if not isinstance(architecture, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from a file
        raise refuse_model(f"the config.json of {name!r} names no architecture")
    if isinstance(config.get("quantization_config"), dict):
        raise refuse_model(
            f"the weights of {name!r} are quantized already; name the original model and set 'quantization' instead"
        )
    modules, layers = linear_modules(shapes), linear_layers(shapes, architecture.startswith(TRANSPOSED))
    if not modules:
        raise refuse_model(f"{name!r} has no linear layers that an adapter could go on")
    return ModelFacts(
        id=name,
        revision=revision,
        path=path,
        architecture=architecture,
        writes=not architecture.endswith(NOT_WRITERS),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        linear_modules=modules,
        modules=_modules(config, shapes),
        layers=_setting(config, LAYERS),
        linear_parameters=sum(layer.count * layer.rows * layer.columns for layer in layers),
        linear_sides=sum(layer.count * layer.sides for layer in layers),
        smallest_linear=min(layer.rows * layer.columns for layer in layers),
        linear_layers=layers,
        norm_parameters=norm_parameters(shapes),
        width=_setting(config, WIDTHS),
        key_width=_key_width(config),
        vocabulary=_setting(config, ("vocab_size",)),
        context_length=_setting(config, CONTEXT_LENGTHS),
        has_chat_template=template is not None,
        chat_template_sha256=template,
        license=license,
    )


def require_writer(facts: ModelFacts) -> ModelFacts:
    """Raise ``InvalidConfig`` where a model does not write text, as most objectives need it."""
    if facts.writes:
        return facts
    raise refuse_model(
        f"{facts.id!r} is a {facts.architecture}, which does not write text; choose a causal language model"
    )


def _key_width(config: Json) -> int | None:
    """Return the width of one layer's keys, as PEFT tells it; None where the configuration does not say."""
    width, heads = _setting(config, WIDTHS), _setting(config, HEADS)
    shared = _setting(config, ("num_key_value_heads",))
    if width is None or heads is None or shared is None:
        return width
    return shared * (_setting(config, ("head_dim",)) or width // heads)


def folder_facts(name: str, folder: Path, revision: str | None = None) -> ModelFacts:
    """Read a folder in the Hugging Face layout; without a given revision, its files' hash serves as one."""
    config = read_config(folder, name)
    weights = _weights(folder, name)
    require_tokenizer(name, {file.name for file in folder.iterdir()})
    return facts_of(
        name,
        revision or _fingerprint(folder, weights),
        config,
        folder_shapes(name, folder),
        template=template_hash(folder),
        license=_license(folder / "README.md"),
        path=str(folder),
    )


def folder_shapes(name: str, folder: Path) -> Shapes:
    """Read the names and shapes of all weights of a model's folder."""
    shapes: Shapes = {}
    for file in _weights(folder, name):
        shapes |= read_shapes(file)
    return shapes


def read_config(folder: Path, name: str) -> Json:
    """Read ``config.json``; raises ``InvalidConfig`` where there is none, with the likely reason."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise refuse_model(f"{name!r} is an adapter, not a base model; name the model it was trained on")
        raise refuse_model(f"{name!r} has no config.json, so it is not a model in the Hugging Face layout")
    config = read_object(folder / "config.json")
    if config is None:
        raise refuse_model(f"the config.json of {name!r} is not a JSON object")
    return config


def template_hash(folder: Path) -> str | None:
    """Return the SHA-256 of the chat template that the tokenizer's files in this folder bring; None without one."""
    for file in TEMPLATES:
        with suppress(OSError):
            return hashlib.sha256((folder / file).read_bytes()).hexdigest()
    template = (read_object(folder / "tokenizer_config.json") or {}).get("chat_template")
    if not template:
        return None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def require_tokenizer(name: str, files: Iterable[str]) -> None:
    """Raise ``InvalidConfig`` if none of a model's files is a tokenizer's vocabulary."""
    if not set(TOKENIZERS).intersection(files):
        raise refuse_model(f"{name!r} has no tokenizer; put its tokenizer.json beside config.json")


def is_whole(folder: Path) -> bool:
    """Whether everything is there to load model and tokenizer from this folder."""
    try:
        _weights(folder, folder.name)
        require_tokenizer(folder.name, {file.name for file in folder.iterdir()})
    except InvalidConfig:
        return False
    return (folder / "config.json").is_file()


def read_object(path: Path) -> Json | None:
    """Read a JSON object, or None where the file is missing or something else."""
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return cast(Json, value) if isinstance(value, dict) else None


def read_shapes(path: Path) -> Shapes:
    """Read the names and shapes of a safetensors file's tensors; one that is not whole raises ``InvalidConfig``."""
    try:
        return {name: list(tensor.shape) for name, tensor in read_header(path).items()}
    except UnsafeFile as error:
        raise refuse_model(
            f"{path.name!r} is not a safetensors file, or not a whole one: {error}; fetch it again"
        ) from None


def license_of(card: str) -> str | None:
    """Read the licence out of a model card's front matter."""
    if not card.startswith("---"):
        return None
    try:
        front: object = yaml.safe_load(card[3:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return None
    value = cast(Json, front).get("license") if isinstance(front, dict) else None
    return value if isinstance(value, str) else None


def _license(card: Path) -> str | None:
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            return license_of(file.read(1 << 16))
    except OSError:
        return None


def _weights(folder: Path, name: str) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        files = (read_object(index) or {}).get("weight_map")
        names = sorted({Path(str(file)).name for file in cast(Json, files).values()}) if isinstance(files, dict) else []
        if missing := next((file for file in names if not (folder / file).is_file()), None):
            raise refuse_model(f"{name!r} lacks {missing!r}, which its index names; fetch the model again")
        if names:
            return [folder / file for file in names]
    raise no_safetensors(name, any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")))


def no_safetensors(name: str, pickled: bool) -> InvalidConfig:
    """Return the error for a model without safetensors weights."""
    if pickled:
        return refuse_model(
            f"{name!r} has its weights only as pickle files (.bin, .pt), which can run code when they are loaded; "
            "convert them to safetensors"
        )
    return refuse_model(f"{name!r} has no safetensors weights")


def _modules(config: Json, shapes: Shapes) -> list[str]:
    """Leaf names of all modules with weights; a head that shares the embedding's is in no file."""
    names = dict.fromkeys(name.split(".")[-2] for name in shapes if name.count(".") > 0)
    return [*names, *(["lm_head"] if config.get("tie_word_embeddings") and "lm_head" not in names else [])]


def _setting(config: Json, keys: tuple[str, ...]) -> int | None:
    """Read a number that architectures call by different names."""
    nested = config.get("text_config")
    for source in (config, cast(Json, nested) if isinstance(nested, dict) else {}):
        for key in keys:
            value = source.get(key)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _fingerprint(folder: Path, weights: list[Path]) -> str:
    """Hash what training depends on; of very large files the header, the size and the time stand for the rest."""
    digest = hashlib.sha256()
    files = {*weights, *folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.txt"), *folder.glob("*.model")}
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0".encode())
        if status.st_size < HASHED_WHOLE:
            digest.update(file.read_bytes())
        else:
            digest.update(f"{status.st_mtime_ns}\0{json.dumps(read_shapes(file))}".encode())
    return digest.hexdigest()[:16]
