"""One id for a kind of GPU, however a vendor writes it."""

import pytest

from infra.providers.slugs import resource_id, slug, vram_in


@pytest.mark.parametrize(
    ("written", "vram_gb", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", 24, "rtx4090"),
        ("RTX 4090", 23.99, "rtx4090"),
        ("RTX_4090", None, "rtx4090"),
        ("NVIDIA A100 80GB PCIe", 80, "a100-80gb"),
        ("NVIDIA A100-SXM4-80GB", None, "a100-80gb"),
        ("A100 SXM4", 79.3, "a100-80gb"),  # as Vast.ai has it, in MB of what the driver leaves
        ("A100 (40 GB SXM4)", None, "a100-40gb"),
        ("H100 (80 GB SXM5)", None, "h100-80gb"),
        ("NVIDIA H100 80GB HBM3", 80, "h100-80gb"),
        ("NVIDIA H100 NVL", 94, "h100-94gb"),
        ("NVIDIA H200", 141, "h200"),
        ("H200 SXM", 141, "h200"),
        ("Tesla V100 (16 GB)", None, "v100-16gb"),
        ("Tesla V100-PCIE-32GB", 32, "v100-32gb"),
        ("A6000 (48 GB)", None, "rtxa6000"),
        ("NVIDIA RTX A6000", 48, "rtxa6000"),
        ("NVIDIA RTX 6000 Ada Generation", 48, "rtx6000ada"),
        ("RTX 6000Ada", 48, "rtx6000ada"),
        ("RTX 6000 (24 GB)", None, "rtx6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96, "rtxpro6000"),
        ("NVIDIA GeForce RTX 4080 SUPER", 16, "rtx4080super"),
        ("RTX 4060 Ti", 16, "rtx4060ti-16gb"),
        ("AMD Instinct MI300X OAM", 192, "mi300x"),
        ("NVIDIA L40S", 48, "l40s"),
        ("T4", 16, "t4"),
        ("???", None, "unknown"),
    ],
)
def test_however_it_is_written_a_gpu_has_one_name(written: str, vram_gb: float | None, expected: str) -> None:
    assert slug(written, vram_gb) == expected


def test_the_number_of_gpus_is_part_of_the_id_where_there_are_several() -> None:
    assert resource_id("RTX 4090", 24) == "gpu-rtx4090"
    assert resource_id("A100 SXM", 80, 8) == "gpu-a100-80gb-x8"


def test_memory_is_read_from_words_only_where_they_name_it() -> None:
    assert vram_in("1x A10 (24 GB PCIe)") == 24
    assert vram_in("RTX 4090") is None
