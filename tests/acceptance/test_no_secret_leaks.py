"""Credentials that are easily found again, looked for wherever a studio, its vendors and its machines have things."""

import json
import secrets
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from benchmarks.rented import RentingStudio, renting_studio
from infra.embedded.environment import prefect_auth_file
from infra.embedded.studio import RunningStudio
from infra.settings import Settings
from infra.simulators.cloud import SimulatedMachine
from infra.simulators.faults import Fault, FaultKind
from peft_studio.remote import CLAIM_VARIABLE
from peft_studio.remote.assignment import CLAIMANT
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import follow, submit, wait_for_step

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]
VENDORS = ("runpod", "vast", "huggingface", "lambda", "kubernetes", "ssh")
KEYS = {name: f"canary-{name}-{secrets.token_hex(12)}" for name in VENDORS}
WRONG = f"canary-wrong-{secrets.token_hex(12)}"  # was never accepted by anybody
HUB_TOKEN = "hub-token"  # a machine's file that may hold one, for its owner's eyes
Place = tuple[str, bytes]


def test_no_credential_is_seen_anywhere_nor_what_a_machine_claims_its_work_with(
    used_data_dir: Callable[[str], Path],
) -> None:
    data_dir = used_data_dir("secrets")
    with renting_studio(data_dir, *VENDORS, keys=KEYS) as renting, looked_at_processes() as lines:
        answers = record_answers(renting)
        jobs = run_jobs(renting)
        ask_what_may_repeat_a_key(renting)
        read_everything(renting, jobs)
        machines = [one for cloud in renting.clouds.values() for one in cloud.machines.values()]
        claims = [one.environment[CLAIM_VARIABLE] for one in machines if CLAIM_VARIABLE in one.environment]
        assert len(machines) >= len(VENDORS) - 1 and claims
        for claim in claims:
            assert httpx.get(claim, headers={CLAIMANT: "another-machine-altogether"}).status_code == 404
        seen = [
            *files_below(renting.studio.data_dir),
            *shown_by_prefect(renting.studio.data_dir),
            *answers,
            *(("an address at a vendor", address.encode()) for _, address in renting.asked),
            *(("a process", line) for line in lines),
        ]
        keys = [*KEYS.values(), WRONG, private_key(renting)]
        assert holders(seen, keys) == []
        assert holders(seen, [claim.rpartition("/")[2] for claim in claims]) == []
        assert holders([*given_to(machines), *files_of(machines)], keys) == []
        assert len(allowed(machines)) >= 3


def run_jobs(renting: RentingStudio) -> list[str]:
    """Run a job at every vendor: one is preempted, one cannot be paid for, one loses its key, one its answer."""
    renting.clouds["vast"].faults.add(Fault(kind=FaultKind.PREEMPTED, value=8))
    renting.clouds["huggingface"].faults.add(Fault(kind=FaultKind.ERROR_AFTER_CREATE))
    renting.clouds["lambda"].faults.add(Fault(kind=FaultKind.OUT_OF_CREDIT))
    long = submit(renting.studio, provider="runpod", max_steps=5000, num_epochs=100)
    short = [submit(renting.studio, provider=vendor, max_steps=20, checkpoint_steps=5) for vendor in VENDORS[1:]]
    wait_for_step(renting.studio, long, 3)
    renting.clouds["runpod"].faults.add(Fault(kind=FaultKind.REVOKED_KEY))
    renting.post(f"/jobs/{long}/pause")
    for one in short:
        follow(renting.studio, one)
    ends = {job["config"]["provider"]: job for job in map(renting.job, short)}
    told = {vendor: end["error"]["code"] if end.get("error") else end["status"] for vendor, end in ends.items()}
    assert told == dict.fromkeys(VENDORS[1:], "completed") | {"lambda": "INSUFFICIENT_CREDITS"}
    assert eventually(lambda: renting.job(long)["status"] == "failed", 60)
    assert renting.job(long)["error"]["code"] == "AUTHENTICATION_FAILED"
    return [long, *short]


def private_key(renting: RentingStudio) -> str:
    """Return the line of the simulated hosts' private key that nothing public has in it."""
    told = httpx.get(f"{renting.addresses['ssh']}/credentials").raise_for_status().json()
    return told["private_key"].splitlines()[4]


def record_answers(renting: RentingStudio) -> list[Place]:
    """Have every answer of the API kept from now on."""
    answers: list[Place] = []

    def keep(response: httpx.Response) -> None:
        head = repr(response.headers.multi_items()).encode()
        answers.append((f"the answer to {response.request.method} {response.url}", head + response.read()))

    renting.api.event_hooks["response"].append(keep)
    return answers


def ask_what_may_repeat_a_key(renting: RentingStudio) -> None:
    """Connect platforms in every wrong way, and have connected ones checked."""
    for credentials in (
        {"api_key": WRONG},
        {"api_key": WRONG, "token": WRONG},
        {"api_key": WRONG, WRONG: WRONG},
        {"api_key": {"key": WRONG}},
        {"api_key": f"{WRONG}\n{WRONG}"},
        {"api_key": WRONG * 1000},
        WRONG,
    ):
        refused = renting.post("/platforms/vast/connect", credentials=credentials)
        assert 400 <= refused.status_code < 500, refused.text
    broken = renting.api.post(
        "/platforms/vast/connect",
        content=f'{{"credentials": {{"api_key": "{WRONG}"',
        headers={"Content-Type": "application/json"},
    )
    assert 400 <= broken.status_code < 500
    for vendor in VENDORS:
        renting.post(f"/platforms/{vendor}/verify")


def read_everything(renting: RentingStudio, jobs: Iterable[str]) -> None:
    """Read what the API has on platforms, machines and jobs."""
    paths = ["/platforms", "/resources", "/machines", "/jobs", "/budgets", "/experiments", "/adapters"]
    paths += [f"/platforms/{vendor}" for vendor in VENDORS]
    of_job = ("", "/logs", "/metrics", "/checkpoints")
    paths += [f"/jobs/{job_id}{part}" for job_id in jobs for part in of_job]
    for path in paths:
        assert renting.api.get(path).is_success, path


@contextmanager
def looked_at_processes() -> Generator[set[bytes]]:
    """Yield the command lines of all processes, and their environments where they may be read, as they come."""
    lines, ended = set[bytes](), threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for name in ("cmdline", "environ"):
                for file in Path("/proc").glob(f"[0-9]*/{name}"):
                    with suppress(OSError):
                        lines.add(name.encode() + b" " + without_claim(file.read_bytes()))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield lines
    ended.set()
    thread.join()


def without_claim(environment: bytes) -> bytes:
    """Return an environment without the one variable by which a machine is given its claim."""
    pairs = environment.split(b"\0")
    return b"\0".join(pair for pair in pairs if not pair.startswith(f"{CLAIM_VARIABLE}=".encode()))


def files_below(folder: Path) -> Iterator[Place]:
    for path in folder.rglob("*"):
        with suppress(OSError):  # sockets, and what is deleted meanwhile
            if path.is_file():
                yield str(path), path.read_bytes()


def shown_by_prefect(data_dir: Path) -> Iterator[Place]:
    """Read what Prefect's API has: runs with their parameters, states, artifacts, log lines, events, blocks."""
    url = RunningStudio.model_validate_json((data_dir / "studio.json").read_bytes()).prefect_api_url
    user, _, password = prefect_auth_file(Settings(data_dir=data_dir)).read_text().partition(":")
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as client:
        for kind in ("flow_runs", "task_runs", "artifacts", "logs", "deployments", "block_documents", "variables"):
            offset = 0
            while (
                rows := client.post(f"/{kind}/filter", json={"limit": 200, "offset": offset}).raise_for_status().json()
            ):
                offset += len(rows)
                yield f"Prefect's {kind}", json.dumps(rows).encode()
                for row in rows if kind == "flow_runs" else ():
                    states = client.get("/flow_run_states/", params={"flow_run_id": row["id"]})
                    yield "Prefect's states", states.raise_for_status().content
            assert offset or kind == "variables", kind
        page = client.post("/events/filter", json={"limit": 50}).raise_for_status().json()
        while page["events"]:
            yield "Prefect's events", json.dumps(page["events"]).encode()
            if not page["next_page"]:
                break
            page = client.get(page["next_page"]).raise_for_status().json()


def given_to(machines: Iterable[SimulatedMachine]) -> Iterator[Place]:
    """Return what vendors were sent to make their machines, and all that these have in their environments."""
    for one in machines:
        yield f"the order of {one.name}", repr((one.command, one.environment, one.details)).encode()


def files_of(machines: Iterable[SimulatedMachine]) -> Iterator[Place]:
    """Return what lies on machines, the one file apart that is for that."""
    for one in machines:
        yield from (place for place in files_below(one.home) if Path(place[0]) not in allowed([one]))


def allowed(machines: Iterable[SimulatedMachine]) -> list[Path]:
    """Return the files of machines that hold the hub's token, which nobody else on the machine may read."""
    found = [path for one in machines for path in one.home.rglob(HUB_TOKEN)]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found)
    return found


def holders(places: Iterable[Place], secret: Iterable[str]) -> list[str]:
    """Name the places that hold a secret."""
    needles = [one.encode() for one in secret]
    held = {(name, content) for name, content in places if any(needle in content for needle in needles)}
    return sorted(f"{name}: {_around(content, needles)!r}" for name, content in held)


def _around(content: bytes, needles: Iterable[bytes]) -> bytes:
    at = min(content.index(needle) for needle in needles if needle in content)
    return content[max(0, at - 80) : at + 80]
