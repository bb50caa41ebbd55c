"""What serves an adapter on this machine: vLLM where it is there, has a GPU and takes the adapter, or as it is set."""

import json
from pathlib import Path

import pytest

from infra.serving.choosing import Choice, base_of
from infra.serving.records import Deployment
from infra.settings import LocalEngine, Settings
from tests.adapter_files import shapes, write_adapter
from tests.vllm_machine import install_vllm, measured


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_vllm(tmp_path, monkeypatch)


def deployed(folder: Path, rank: int = 8, *, dora: bool = False, **config: object) -> Deployment:
    folder.mkdir()
    write_adapter(folder / "adapter_model.safetensors", shapes(rank, dora=dora))
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    return Deployment(
        deployment_id="deploy_1", adapter_id="adapter_1", adapter=str(folder), base_model="org/model", chat=True
    )


def test_vllm_is_used_where_it_is_installed_and_has_a_gpu(studio_settings: Settings, vllm: Path) -> None:
    deployment = deployed(studio_settings.data_dir.parent / "adapter")
    assert Choice(studio_settings).engine(deployment) is LocalEngine.OWN  # nothing was measured yet
    assert Choice(measured(studio_settings)).engine(deployment) is LocalEngine.VLLM
    vllm.unlink()
    assert Choice(studio_settings).engine(deployment) is LocalEngine.OWN


def test_without_a_gpu_the_studio_serves_by_itself(studio_settings: Settings, vllm: Path, tmp_path: Path) -> None:
    choice = Choice(measured(studio_settings, []))
    assert choice.engine(deployed(tmp_path / "adapter")) is LocalEngine.OWN


@pytest.mark.parametrize("engine", [LocalEngine.OWN, LocalEngine.VLLM])
def test_a_setting_has_the_last_word(
    studio_settings: Settings, vllm: Path, tmp_path: Path, engine: LocalEngine
) -> None:
    settings = measured(studio_settings).model_copy(update={"local_engine": engine})
    choice = Choice(settings)
    for deployment in (deployed(tmp_path / "plain"), deployed(tmp_path / "dora", dora=True, use_dora=True)):
        assert choice.engine(deployment) is engine
        assert not choice.turns_away(engine, deployment.adapter, "no room")
        assert choice.engine(deployment) is engine


def test_adapters_that_vllm_does_not_take_have_the_studios_own_endpoint(
    studio_settings: Settings, vllm: Path, tmp_path: Path
) -> None:
    choice = Choice(measured(studio_settings))
    assert choice.engine(deployed(tmp_path / "fits", 64)) is LocalEngine.VLLM
    for refused in (
        deployed(tmp_path / "high", 65),
        deployed(tmp_path / "dora", dora=True, use_dora=True),
        deployed(tmp_path / "scaled", alpha_pattern={"q_proj": 4}),
        deployed(tmp_path / "beside", modules_to_save=["lm_head"]),
    ):
        assert choice.engine(refused) is LocalEngine.OWN
    missing = refused.model_copy(update={"adapter": str(tmp_path / "nowhere")})
    assert choice.engine(missing) is LocalEngine.OWN  # which says what is missing


def test_what_vllm_turned_out_not_to_serve_is_not_offered_to_it_again(
    studio_settings: Settings, vllm: Path, tmp_path: Path
) -> None:
    choice = Choice(measured(studio_settings))
    one, two = deployed(tmp_path / "one"), deployed(tmp_path / "two")
    assert not choice.turns_away(LocalEngine.OWN, one.adapter, "its own endpoint does not, either")
    assert choice.turns_away(LocalEngine.VLLM, one.adapter, "no such module")
    assert [choice.engine(deployment) for deployment in (one, two)] == [LocalEngine.OWN, LocalEngine.VLLM]
    assert choice.turns_away(LocalEngine.VLLM, base_of(two), "no room")
    assert choice.engine(two) is LocalEngine.OWN
