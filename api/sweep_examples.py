"""Examples that the API's documentation shows of sweeps and schedules."""

from typing import Any

from api.examples import COMPARISON, CONFIG, CREATED, EXPERIMENT

SWEEP: dict[str, Any] = {
    "name": "ranks and rates",
    "config": CONFIG | {"eval_steps": 50},
    "grid": {"rank": [8, 16], "learning_rate": [1e-4, 2e-4]},
    "metric": "eval_loss",
    "parallel": 2,
    "budget": 10.0,
    "early_stopping": {"rungs": [50, 100, 200], "reduction_factor": 3},
}

SWEEP_RUNNING: dict[str, Any] = {
    "sweep_id": "sweep_5b1f0c9e2a7d4f6c8e3b9a1d0c7f2e46",
    "name": SWEEP["name"],
    "status": "running",
    "created_at": "2024-01-15T10:30:00Z",
    "started_at": "2024-01-15T10:30:02Z",
    "config": SWEEP["config"],
    "metric": "eval_loss",
    "direction": "minimize",
    "parallel": 2,
    "budget": 10.0,
    "early_stopping": SWEEP["early_stopping"],
    "duplicates": 0,
    "points": [
        {
            "number": 0,
            "changes": {"rank": 8, "learning_rate": 1e-4, "max_cost": 1.9},
            "status": "completed",
            "job_id": CREATED["job_id"],
            "experiment_id": EXPERIMENT["id"],
            "progress": 1.0,
            "value": 0.42,
            "rungs": {"50": 0.9, "100": 0.61, "200": 0.47},
            "cost": 1.25,
        },
        {
            "number": 1,
            "changes": {"rank": 8, "learning_rate": 2e-4, "max_cost": 1.9},
            "status": "stopped",
            "job_id": "job_0d3c6a6f1b2a4d5c8e7f60718293a4b5",
            "experiment_id": "exp_0d3c6a6f1b2a4d5c8e7f60718293a4b5",
            "progress": 0.05,
            "value": 1.31,
            "rungs": {"50": 1.31},
            "cost": 0.11,
            "reason": "At step 50 its eval_loss of 1.31 was not among the best 1 of 2 points.",
        },
        {
            "number": 2,
            "changes": {"rank": 16, "learning_rate": 1e-4},
            "status": "waiting",
            "progress": 0.0,
            "rungs": {},
        },
    ],
    "best": 0,
    "cost": 1.36,
}

SWEEPS: dict[str, Any] = {
    "sweeps": [
        {name: SWEEP_RUNNING[name] for name in ("sweep_id", "name", "status", "created_at", "metric", "direction")}
        | {"points": 3}
    ],
    "next_cursor": None,
}

SWEEP_CANCELLED: dict[str, Any] = {"success": True, "sweep_id": SWEEP_RUNNING["sweep_id"], "status": "cancelled"}

SWEEP_COMPARISON: dict[str, Any] = COMPARISON

SCHEDULE: dict[str, Any] = {
    "name": "nightly",
    "config": CONFIG,
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "overlap": "skip",
}

SCHEDULED: dict[str, Any] = {
    "schedule_id": "schedule_9d2b7c1e4f5a4b3c8d6e7f8091a2b3c4",
    "name": "nightly",
    "active": True,
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "overlap": "skip",
    "config": CONFIG,
    "key_id": "3f9a1b2c4d5e",
    "created_at": "2024-01-15T10:30:00Z",
    "next_runs": ["2024-01-17T03:00:00+01:00", "2024-01-18T03:00:00+01:00"],
    "last_runs": [
        {
            "scheduled_at": "2024-01-16T02:00:00Z",
            "status": "started",
            "job_id": CREATED["job_id"],
            "reason": None,
        }
    ],
}

SCHEDULES: dict[str, Any] = {"schedules": [SCHEDULED | {"last_runs": []}]}

SCHEDULE_CHANGES: dict[str, Any] = {"cron": "30 2 * * 1-5", "overlap": "queue"}

SCHEDULE_DELETED: dict[str, Any] = {"success": True, "schedule_id": SCHEDULED["schedule_id"]}
