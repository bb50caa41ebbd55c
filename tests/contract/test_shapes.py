"""The table of promises notices what is missing or wrong."""

import pytest

from tests.contract.shapes import INTEGER, NUMBER, TEXT, TEXT_OR_NULL, TIME, TRUE, Shape, differences, shape_of


@pytest.mark.parametrize(
    ("shape", "value", "found"),
    [
        ({"a": TEXT}, {}, ["$.a: missing"]),
        ({"a": TEXT}, {"a": "x", "b": 1}, []),
        ({"a": NUMBER}, {"a": True}, [f"$.a: True is none of {NUMBER}"]),
        ({"a": TRUE}, {"a": True}, []),
        ([{"a": TIME}], [{"a": "2024-01-15"}], [f"$[0].a: '2024-01-15' is not {TIME.pattern}"]),
        ([TEXT], [], ["$: [] is no list with something in it"]),
        ({"a": True}, {"a": 1}, ["$.a: 1 is not True"]),
    ],
)
def test_the_table_notices(shape: Shape, value: object, found: list[str]) -> None:
    assert differences(shape, value) == found


def test_an_example_says_which_fields_of_which_types_and_formats_there_are() -> None:
    example = {
        "job_id": "job_abc123",
        "status": "running",
        "created_at": "2024-01-15T10:30:00Z",
        "config": ...,
        "count": 1,
        "vram_gb": 24,
        "rate": 0.69,
        "available": True,
        "endpoint": None,
        "names": ["a"],
        "text": "job done",
    }
    shape = shape_of(example, {"rank": INTEGER})
    assert shape.pop("job_id").pattern == "job_[0-9a-f]{32}"
    assert shape == {
        "status": "running",
        "created_at": TIME,
        "config": {"rank": INTEGER},
        "count": INTEGER,
        "vram_gb": NUMBER,
        "rate": NUMBER,
        "available": TRUE,
        "endpoint": TEXT_OR_NULL,
        "names": [TEXT],
        "text": TEXT,
    }
