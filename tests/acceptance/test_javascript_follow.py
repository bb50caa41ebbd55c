"""The JavaScript client against a live studio: what its users do, in Node."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pytest
from safetensors.numpy import load_file

from benchmarks.studio import ROOT, Studio
from tests.acceptance.jobs import follow, part, run_dir, short_job, submit
from tests.node import NODE, installed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
ROWS = ROOT / "demo" / "support.jsonl"
BEGIN = """
import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";
import { Client, InvalidConfig, JobNotFound, StudioError, AuthenticationFailed } from "peft-studio";

const { URL: url, KEY: apiKey, GIVEN } = process.env;
const given = JSON.parse(GIVEN);
const studio = new Client({ url, apiKey });
const tell = (what) => console.log(JSON.stringify(what));
const refusal = (call) => call.then(() => null, (error) => ({
  of: [InvalidConfig, JobNotFound, AuthenticationFailed, StudioError].map((kind) => error instanceof kind),
  code: error.code, status: error.status, details: error.details, message: error.message,
}));
"""
Told = Iterator[Any]
Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def program(studio: Studio, tmp_path: Path) -> Program:
    """Start a program that uses the client; ``given`` is what it knows of the test."""
    file = installed(tmp_path) / "program.mjs"

    def started(text: str, **given: Any) -> "subprocess.Popen[str]":
        file.write_text(BEGIN + text)
        knows = {"URL": studio.url, "KEY": studio.key, "GIVEN": json.dumps(given)}
        return subprocess.Popen(
            [NODE, str(file)],
            cwd=tmp_path,
            env=os.environ | knows,
            stdout=subprocess.PIPE,
            text=True,
        )

    return started


@contextmanager
def told(program: "subprocess.Popen[str]") -> Iterator[Told]:
    """Read what a program tells, one value a line; it must end well."""
    with program:
        try:
            yield map(json.loads, _output(program))
            assert program.wait(100) == 0
        finally:
            program.kill()


def _output(program: "subprocess.Popen[str]") -> IO[str]:
    assert program.stdout
    return program.stdout


WHOLE_WAY = """
tell((await studio.searchModels("demo")).models);
const progress = [];
const onProgress = (sent, total) => progress.push([sent, total]);
const rows = await openAsBlob(given.rows);
const dataset = await studio.uploadDataset(rows, { name: "rows.jsonl", onProgress, pieceBytes: 20_000 });
tell([dataset, progress]);
const { job_id } = await studio.createJob({ ...given.config, dataset_path: dataset.dataset_id });
const seen = [];
for await (const event of studio.follow(job_id)) seen.push(event);
tell(seen);
tell(await studio.getJob(job_id));
tell(await studio.listJobs({ status: "completed", project: given.config.project_name }));
tell((await studio.getMetrics(job_id)).metrics);
tell((await studio.listAdapters({ jobId: job_id })).adapters);
const [{ id }] = (await studio.listAdapters({ jobId: job_id })).adapters;
const weights = await studio.downloadAdapter(id, { file: "adapter_model.safetensors" });
await writeFile("adapter.safetensors", weights.body);
"""


def test_a_data_set_is_uploaded_trained_on_and_its_adapter_downloaded(
    studio: Studio, program: Program, tmp_path: Path
) -> None:
    config = short_job(max_steps=12, project_name=f"in-node-{uuid4().hex}")
    with told(program(WHOLE_WAY, rows=str(ROWS), config=config)) as tells:
        assert [(model["id"], model["source"]) for model in next(tells)] == [("demo/model", "local")]
        dataset, progress = next(tells)
        size = ROWS.stat().st_size
        assert (dataset["rows"], dataset["sha256"]) == (len(ROWS.read_text().splitlines()), sha256(ROWS))
        assert progress == [[min(sent, size), size] for sent in range(20_000, size + 20_000, 20_000)]
        events = next(tells)
        job = next(tells)
        assert (job["status"], job["config"]["dataset_path"]) == ("completed", dataset["dataset_id"])
        assert [found["job_id"] for found in next(tells)["jobs"]] == [job["job_id"]]
        assert events == [said(event) for event in follow(studio, job["job_id"])]
        reported = [event["metrics"] for event in events if event["type"] == "metrics"]
        assert [entry["step"] for entry in reported if "loss" in entry] == list(range(1, 13))
        history = next(tells)
        assert [entry["loss"] for entry in history if "loss" in entry] == [
            entry["loss"] for entry in reported if "loss" in entry
        ]
        (adapter,) = next(tells)
        assert (adapter["job_id"], adapter["metadata"]["rank"]) == (job["job_id"], config["rank"])
    assert f"sha256:{sha256(tmp_path / 'adapter.safetensors')}" == job["artifact"]["hash"]
    assert load_file(tmp_path / "adapter.safetensors")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said(event: Any) -> dict[str, Any]:
    return json.loads(event.model_dump_json(exclude_none=True))


FOLLOW = "for await (const event of studio.follow(given.job, { transport: given.transport })) tell(event);"


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_a_follower_sees_every_event_once_although_the_api_is_killed_meanwhile(
    studio: Studio, program: Program, transport: str
) -> None:
    job_id = submit(studio, max_steps=150, num_epochs=50)
    before = part(studio, "api.app")
    with told(program(FOLLOW, job=job_id, transport=transport)) as tells:
        seen = [next(tells)]
        while not (seen[-1]["type"] == "metrics" and seen[-1]["metrics"]["step"] >= 5):
            seen.append(next(tells))
        before.kill()
        latest = run_dir(studio, job_id).latest().metrics["step"]
        assert latest < 150, "the job was too quick for this test"
        seen += tells
    assert part(studio, "api.app").pid != before.pid
    assert seen == [said(event) for event in follow(studio, job_id)]
    steps = [event["metrics"]["step"] for event in seen if event["type"] == "metrics" and "loss" in event["metrics"]]
    assert steps == list(range(1, 151))


REFUSALS = """
tell(await refusal(studio.createJob({ ...given.config, learning_rate: 5 })));
tell(await refusal(studio.getJob("job_abc123")));
tell(await refusal(new Client({ url, apiKey: "ps_nobodys" }).listJobs()));
tell(await refusal(studio.follow("job_abc123").next()));
"""


def test_a_refusal_is_an_error_of_its_class_with_the_field_that_is_wrong(program: Program) -> None:
    with told(program(REFUSALS, config=short_job())) as tells:
        config, job, key, followed = tells
    assert (config["of"], config["code"], config["status"]) == ([True, False, False, True], "INVALID_CONFIG", 400)
    assert config["details"]["field"] == "learning_rate"
    assert (job["of"], job["code"], job["status"]) == ([False, True, False, True], "JOB_NOT_FOUND", 404)
    assert "job_abc123" in job["message"]
    assert (key["of"], key["code"], key["status"]) == ([False, False, True, True], "AUTHENTICATION_FAILED", 401)
    assert (followed["of"], followed["code"], followed["message"]) == (job["of"], job["code"], job["message"])
