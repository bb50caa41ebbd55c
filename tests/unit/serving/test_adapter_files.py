"""Adapters that do not fit are refused with the reason."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.serving.adapter_files import CONFIG, WEIGHTS, BaseName, read_adapter
from peft_studio.errors import InvalidConfig, NotFound
from tests.unit.serving.adapters import load

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def model(base_folder: Path) -> Any:
    return load(base_folder)


@pytest.fixture
def folder(adapters: Mapping[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapters["lora"], tmp_path / "adapter"))


def change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **settings}))


def reason(folder: Path, model: Any, base: BaseName) -> str:
    with pytest.raises(InvalidConfig) as refused:
        read_adapter(folder, model, base)
    assert refused.value.details["field"] == "lora_path"
    return refused.value.message


@pytest.fixture
def base(base_folder: Path) -> BaseName:
    return BaseName(str(base_folder))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_model_name_or_path": "org/other"}, "trained on 'org/other'"),
        ({"peft_type": "IA3"}, "only LORA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_what_cannot_be_served_is_refused(
    settings: dict[str, Any], said: str, folder: Path, model: Any, base: BaseName
) -> None:
    change(folder, **settings)
    assert said in reason(folder, model, base)


def test_another_revision_of_the_base_model_is_refused(folder: Path, model: Any, base_folder: Path) -> None:
    change(folder, revision="abc")
    assert "revision abc" in reason(folder, model, BaseName(str(base_folder), "def"))


def test_a_hub_model_is_known_by_its_place_in_the_cache(folder: Path, model: Any) -> None:
    change(folder, base_model_name_or_path="/cache/models--org--name/snapshots/abc")
    assert read_adapter(folder, model, BaseName("org/name")).weights


def test_a_base_model_is_known_by_any_path(folder: Path, model: Any, base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base_folder)
    assert read_adapter(folder, model, BaseName(str(tmp_path / "link"))).weights


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        (FIRST, torch.ones(4, 31), "its shapes for 'model.layers.0.self_attn.q_proj' are (4, 31)"),
        (FIRST, torch.full((4, 32), torch.nan), "not finite"),
        (FIRST.replace("layers.0", "layers.9"), torch.ones(4, 32), "no layer 'model.layers.9.self_attn.q_proj'"),
        (FIRST.replace("lora_A", "lora_embedding_A"), torch.ones(4, 32), "only LoRA and DoRA"),
        ("base_model.model.lm_head.lora_A.weight", torch.ones(4, 32), "lacks one of its halves"),
        ("base_model.model.model.norm.lora_A.weight", torch.ones(4, 32), "not a linear layer"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    name: str, tensor: torch.Tensor, said: str, folder: Path, model: Any, base: BaseName
) -> None:
    save_file({**load_file(folder / WEIGHTS), name: tensor}, folder / WEIGHTS)
    assert said in reason(folder, model, base)


def test_files_that_are_no_adapter_are_refused(folder: Path, model: Any, base: BaseName) -> None:
    (folder / WEIGHTS).write_bytes(b"torn")
    assert "cannot be read" in reason(folder, model, base)
    (folder / WEIGHTS).unlink()
    with pytest.raises(NotFound):
        read_adapter(folder, model, base)


def test_the_adapters_own_chat_template_is_read(folder: Path, model: Any, base: BaseName) -> None:
    assert read_adapter(folder, model, base).chat_template is None
    (folder / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    assert read_adapter(folder, model, base).chat_template == "old"
    (folder / "chat_template.jinja").write_text("own")
    assert read_adapter(folder, model, base).chat_template == "own"
