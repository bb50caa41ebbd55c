"""What rented machines ask of the API: their work, its files and their mailbox, and nothing else."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.rendezvous.door import CallbackDoor
from infra.settings import Settings
from peft_studio.errors import NotFound
from peft_studio.events import now
from peft_studio.remote.assignment import CLAIMANT, Assignment, Orders, Upload
from tests.integration.api.fixtures import Client, Connect

MACHINE = "pst-abcdef-" + "1" * 32 + "-1"
OTHER = "pst-abcdef-" + "2" * 32 + "-1"
FIRST, SECOND = "first-machine-0000", "second-machine-000"
SECRET = "hf_the-hubs-own-token"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", public_url="http://testserver")


@pytest.fixture
def studio(connect: Connect, settings: Settings) -> Client:
    return connect(key=None, data_dir=settings.data_dir)


def opened(settings: Settings, machine: str = MACHINE, seconds: float = 60, **files: Path) -> tuple[CallbackDoor, str]:
    """A door, and the address that its work is claimed at."""
    door = CallbackDoor(settings, machine)
    work = Assignment(
        job_id=door.run.job_id,
        machine=machine,
        inputs=[],
        orders_url="",
        upload=Upload(url=""),
        deadline_seconds=600,
        checkpoint_seconds=60,
        silence_seconds=60,
        stop_seconds=60,
    )
    return door, door.open(work, {path.replace("__", "/"): file for path, file in files.items()}, seconds)


def claimed(studio: Client, address: str, claimant: str = FIRST) -> Any:
    return studio.get(address, headers={CLAIMANT: claimant})


def entered(studio: Client, address: str) -> Mapping[str, str]:
    """The headers of a machine that has claimed its work."""
    return {"Authorization": f"Bearer {claimed(studio, address).json()['token']}"}


def test_work_goes_to_the_first_machine_that_asks_and_to_no_other(studio: Client, settings: Settings) -> None:
    door, address = opened(settings)
    assert not door.is_claimed
    work = claimed(studio, address)
    assert work.status_code == 200 and work.headers["Cache-Control"] == "no-store"
    assert door.is_claimed
    assert claimed(studio, address, SECOND).status_code == 404
    again = claimed(studio, address)
    assert again.status_code == 200 and again.json()["token"] == work.json()["token"]


def test_a_container_that_was_started_anew_has_no_more_time_than_it_had(studio: Client, settings: Settings) -> None:
    _, address = opened(settings)
    first = claimed(studio, address).json()["deadline_seconds"]
    assert claimed(studio, address).json()["deadline_seconds"] < first


def test_of_two_machines_that_ask_at_once_one_gets_the_work(settings: Settings) -> None:
    door, address = opened(settings)
    code, barrier, got = address.rsplit("/", 1)[1], threading.Barrier(8), list[str]()

    def claim(claimant: str) -> None:
        barrier.wait()
        try:
            CallbackDoor(settings, MACHINE).claim(code, claimant)
            got.append(claimant)
        except NotFound:
            pass

    threads = [threading.Thread(target=claim, args=(f"machine-number-{n:05d}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and door.is_claimed


@pytest.mark.parametrize("claimant", ["", "short", "x" * 200])
def test_a_claimant_has_a_name(studio: Client, settings: Settings, claimant: str) -> None:
    door, address = opened(settings)
    assert claimed(studio, address, claimant).status_code == 400
    assert not door.is_claimed


def test_a_wrong_code_an_expired_claim_and_a_shut_door_get_nothing(studio: Client, settings: Settings) -> None:
    _, address = opened(settings)
    assert claimed(studio, address[:-1] + ("A" if address[-1] != "A" else "B")).status_code == 404
    assert claimed(studio, address.replace(MACHINE, OTHER)).status_code == 404
    assert claimed(studio, address.replace(MACHINE, "..%2f..")).status_code == 404
    door, address = opened(settings)
    door.shut()
    assert claimed(studio, address).status_code == 404
    _, address = opened(settings, seconds=-1)
    assert claimed(studio, address).status_code == 404


def test_a_claim_that_was_made_in_time_may_be_repeated_later(studio: Client, settings: Settings) -> None:
    door, address = opened(settings)
    assert claimed(studio, address).status_code == 200
    file = door.folder / "door.json"
    file.write_text(file.read_text().replace(f'"{now().year}-', '"2001-'))
    assert claimed(studio, address).status_code == 200


def test_the_hubs_token_is_in_the_answer_and_nowhere_on_disk(
    studio: Client, settings: Settings, credentials: CredentialsInMemory
) -> None:
    with ExitStack() as stack:
        portal = stack.enter_context(studio.portal())
        kept = Credentials(platform="huggingface", verified_at=now(), values={"api_key": SecretStr(SECRET)})
        portal.call(credentials.put, kept)
    _, address = opened(settings)
    work = claimed(studio, address).json()
    assert work["secrets"] == {"HF_TOKEN": SECRET}
    for file in (path for path in settings.data_dir.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert SECRET.encode() not in content and work["token"].encode() not in content, file


@pytest.mark.parametrize("token", ["", "x", "ünïcode", "0" * 64])
def test_a_wrong_token_opens_nothing(studio: Client, settings: Settings, token: str) -> None:
    _, address = opened(settings)
    claimed(studio, address)
    base, headers = address.partition("/claims/")[0], {b"Authorization": f"Bearer {token}".encode()}
    assert studio.get(f"{base}/orders", headers=headers).status_code == 401
    assert studio.get(f"{base}/inputs/model/config.json", headers=headers).status_code == 401
    assert studio.put(f"{base}/files/alive.json", headers=headers, content=b"{}").status_code == 401


def test_a_machines_token_opens_its_own_door_until_that_is_shut(studio: Client, settings: Settings) -> None:
    door, address = opened(settings)
    base, own = address.partition("/claims/")[0], entered(studio, address)
    _, others = opened(settings, OTHER)
    claimed(studio, others)
    there = others.partition("/claims/")[0]
    door.order(Orders(stop="enough"))
    assert studio.get(f"{base}/orders", headers=own).json()["stop"] == "enough"
    assert studio.get(f"{there}/orders", headers=own).status_code == 401
    assert studio.get("/api/v1/jobs", headers=own).status_code == 401
    assert studio.put(f"{base}/files/alive.json", headers=own, content=b"{}").status_code == 204
    door.shut()
    assert studio.get(f"{base}/orders", headers=own).status_code == 401
    assert studio.put(f"{base}/files/alive.json", headers=own, content=b"{}").status_code == 401
    assert door.box.contents() == {}


def test_a_machine_fetches_its_inputs_and_no_other_files(studio: Client, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    _, address = opened(settings, model__weights=tmp_path / "weights")
    base, own = address.partition("/claims/")[0], entered(studio, address)
    [file] = claimed(studio, address).json()["inputs"]
    assert (file["path"], file["size"]) == ("model/weights", 7)
    assert studio.get(file["url"], headers=own).content == b"weights"
    for path in ("weights", "model/../weights", "..%2f..%2fsecrets%2frendezvous", str(tmp_path / "weights")):
        assert studio.get(f"{base}/inputs/{path}", headers=own).status_code == 404


@pytest.mark.parametrize(
    "place",
    [
        "orders.json",
        "door.json",
        "..%2fdoor.json",
        "adapter/..%2f..%2fdoor.json",
        "adapter/%2e%2e",
        "checkpoints/step-1/%2e%2e",
        "events/1",
        "%2fetc%2fpasswd",
        "adapter/a%00b",
        "adapter/" + "a" * 101,
    ],
)
def test_nothing_escapes_a_mailbox(studio: Client, settings: Settings, place: str) -> None:
    door, address = opened(settings)
    own = entered(studio, address)
    before = {path: path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()}
    answer = studio.put(f"{address.partition('/claims/')[0]}/files/{place}", headers=own, content=b"{}")
    assert answer.status_code in (400, 404), answer.text
    assert door.box.contents() == {}
    assert {path: path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("place", "size"), [(f"events/{0:015d}", 4 << 20), ("end.json", 1 << 20)])
def test_a_file_that_is_too_large_for_its_place_is_refused(
    studio: Client, settings: Settings, place: str, size: int
) -> None:
    door, address = opened(settings)
    base, own = address.partition("/claims/")[0], entered(studio, address)
    assert studio.put(f"{base}/files/{place}", headers=own, content=b" " * (size + 1)).status_code == 413
    assert door.box.contents() == {}
    assert studio.put(f"{base}/files/{place}", headers=own, content=b" " * size).status_code == 204
    assert list(door.box.contents()) == [place]


def test_a_file_that_is_sent_again_takes_the_others_place(studio: Client, settings: Settings) -> None:
    door, address = opened(settings)
    base, own = address.partition("/claims/")[0], entered(studio, address)
    for content in (b"one", b"two"):
        assert studio.put(f"{base}/files/adapter/x.bin", headers=own, content=content).status_code == 204
    assert door.box.read("adapter/x.bin", 10) == b"two"


def test_names_that_are_no_machines_are_nobodys_door(studio: Client) -> None:
    for name in ("x", "pst-abcdef-xyz-1", MACHINE.upper()):
        assert studio.get(f"/api/v1/rendezvous/{name}/orders").status_code == 404
