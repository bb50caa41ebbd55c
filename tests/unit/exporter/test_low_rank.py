"""Plain LoRAs from adapters of other kinds, loaded by stock PEFT."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from peft_studio.effect import PROBES
from peft_studio.errors import InvalidConfig
from peft_studio.exporter.low_rank import low_rank
from peft_studio.exporter.make import make
from peft_studio.exporter.merge import Source, copy_adapter
from peft_studio.trainer.adapter import load_adapter
from tests.unit.exporter.trained import adapter, adapter_settings, base_model, logits, quiet, task

TOKENS = [0, 281, 299, 287, 298, 284, 17, 45]


def test_a_matrix_is_taken_apart_into_the_closest_product() -> None:
    torch.manual_seed(0)
    exact = torch.randn(40, 3) @ torch.randn(3, 30)
    up, down = low_rank(exact, 3)
    assert torch.allclose(up @ down, exact, atol=1e-4)
    wide_up, wide_down = low_rank(torch.randn(4, 6), 8)
    assert (wide_up.shape, wide_down.shape) == ((4, 8), (8, 6))
    large = torch.randn(1100, 5) @ torch.randn(5, 1060)
    up, down = low_rank(large, 5)
    assert (large - up @ down).norm() < 1e-3 * large.norm()


@pytest.mark.parametrize(("algorithm", "rank"), [("loha", 16), ("vera", 4)])
def test_a_low_rank_change_comes_out_as_the_very_same_lora(algorithm: str, rank: int, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base, algorithm)
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, algorithm, format="lora", rank=rank), out, quiet)
    assert result.approximation and result.approximation.error < 1e-3
    settings = adapter_settings(out)
    assert (settings["peft_type"], settings["use_dora"], settings["rank_pattern"]) == ("LORA", False, {})
    bases = [AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2)]
    expected = logits(load_adapter(bases[0], stored), TOKENS)
    assert torch.allclose(logits(load_adapter(bases[1], out), TOKENS), expected, atol=1e-3)


def test_what_a_lora_cannot_hold_is_reported_as_an_error(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base, "dora")
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, "dora", format="lora"), out, quiet)
    assert result.approximation
    assert 0.01 < result.approximation.error <= result.approximation.worst_error < 1
    assert result.approximation.worst_layer


def test_ranks_of_single_layers_become_one_rank(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    stored = adapter(tmp_path / "adapter", base, rank_pattern={"q_proj": 8}, alpha_pattern={"q_proj": 64})
    (out := tmp_path / "out").mkdir()
    result = make(task(base, stored, format="lora", rank=8), out, quiet)
    settings = adapter_settings(out)
    assert (settings["r"], settings["lora_alpha"], settings["alpha_pattern"]) == (8, 8, {})
    assert result.approximation and result.approximation.error < 1e-3


def test_a_plain_lora_and_what_changes_more_than_linear_layers_are_refused(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    plain = adapter(tmp_path / "plain", base)
    with pytest.raises(InvalidConfig, match="plain LoRA already"):
        make(task(base, plain, format="lora"), tmp_path, quiet)
    norms = adapter(tmp_path / "norms", base, "ln_tuning")
    with pytest.raises(InvalidConfig, match="linear layers only"):
        make(task(base, norms, "ln_tuning", format="lora"), tmp_path, quiet)


def test_rows_of_the_data_set_do_not_leave_with_an_export(tmp_path: Path) -> None:
    (stored := tmp_path / "adapter").mkdir()
    (out := tmp_path / "out").mkdir()
    for name in (PROBES, "publications.json", "lineage.json"):
        (stored / name).write_text("{}")
    copy_adapter(Source(stored, "base"), out)
    assert [path.name for path in out.iterdir()] == ["lineage.json"]
