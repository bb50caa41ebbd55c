"""Job files: YAML as people write it."""

from pathlib import Path

import pytest

from peft_studio.cli.job_file import read_job


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-4", 1e-4),
        ("5.0e-3", 5e-3),
        ("2E+2", 200.0),
        ("-1e3", -1000.0),
        ("1e-4x", "1e-4x"),
        ('"1e-4"', "1e-4"),
        ("8", 8),
    ],
)
def test_numbers_are_numbers_with_and_without_a_point(tmp_path: Path, written: str, read: object) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"learning_rate: {written}\n")
    assert read_job(str(file), []) == {"learning_rate": read}
    assert read_job(str(file), [f"alpha={written}"])["alpha"] == read
