"""What is tried when memory runs out: less at once, and the same rows behind every step."""

from pathlib import Path

import pytest

from peft_studio.oom_ladder import Layout, layout_of, lower, step_down
from peft_studio.run_dir import RunDir
from tests.rented_jobs import config


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (4, 4), (6, 1), (5, 3), (7, 1), (1, 16), (12, 5)])
def test_every_rung_keeps_the_rows_of_a_step_and_the_last_one_ends_it(batch: int, accumulation: int) -> None:
    asked = config(batch_size=batch, gradient_accumulation_steps=accumulation)
    layout, sizes = Layout.of(asked), [batch]
    while (below := lower(asked, layout)) is not None:
        assert below.applied_to(asked).effective_batch_size == batch * accumulation
        assert below.batch_size < layout.batch_size or below.gradient_checkpointing > layout.gradient_checkpointing
        layout = below
        sizes.append(layout.batch_size)
    assert (layout.batch_size, layout.gradient_checkpointing) == (1, True)
    assert sizes == sorted(sizes, reverse=True)


def test_prefix_tuning_cannot_compute_activations_again() -> None:
    asked = config(algorithm="prefix_tuning", batch_size=1)
    assert lower(asked, Layout.of(asked)) is None


def test_a_run_goes_down_rung_by_rung_and_its_configuration_stays(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "job_1")
    asked = config(batch_size=4, gradient_accumulation_steps=2)
    run.write("config.json", asked)
    assert layout_of(run, asked) == Layout.of(asked)
    seen = list[tuple[int, int, bool]]()
    while (layout := step_down(run)) is not None:
        assert layout_of(run, asked) == layout
        seen.append((layout.batch_size, layout.gradient_accumulation_steps, layout.gradient_checkpointing))
    assert seen == [(2, 4, False), (1, 8, False), (1, 8, True)]
    assert run.read_config() == asked
