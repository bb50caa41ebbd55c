"""Requests of the last minute."""

from infra.serving.meter import Meter


def test_the_last_minute_is_counted_by_model_and_in_all() -> None:
    now = 0.0
    meter = Meter(lambda: now)
    meter.count("a", 0.1)
    now = 50.0
    meter.count("a", 0.3)
    meter.count("b", 0.5)
    assert meter.load().model_dump() == {"requests_per_minute": 3, "avg_latency_ms": 300.0}
    now = 61.0
    assert meter.load("a").model_dump() == {"requests_per_minute": 1, "avg_latency_ms": 300.0}
    now = 200.0
    assert meter.load().model_dump() == {"requests_per_minute": 0, "avg_latency_ms": None}
