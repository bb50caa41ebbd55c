"""What is peculiar to one's own machines: who they are, what they tell, and that nothing of a job stays behind."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from pydantic import SecretStr

from infra.credentials import CredentialsInMemory
from infra.platforms.connections import Platforms
from infra.providers.base import Account, MachineState, NoCapacity
from infra.providers.ssh import Ssh
from infra.settings import Settings
from infra.simulators.faults import FaultKind
from infra.simulators.ssh import HOURLY_RATE, credentials
from infra.ssh import Login, logins
from peft_studio.errors import CredentialRefused, InvalidConfig, ResourceUnavailable
from peft_studio.platforms import PlatformStatus
from tests.integration.providers.renting import Renting, eventually, order, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = pytest.mark.anyio
[VENDOR] = [vendor for vendor in VENDORS if vendor.name == "ssh"]
IGNORES_TERM = "trap '' TERM; touch ready; while :; do sleep 0.05; done"


@pytest.fixture
def renting() -> Iterator[Renting]:
    with renting_from(VENDOR) as renting:
        yield renting


@pytest.fixture
def given(renting: Renting) -> dict[str, str]:
    return credentials(renting.address)


async def until(file: Path) -> None:
    async def is_there() -> bool | None:
        return file.exists() or None

    await eventually(is_there)


async def test_offers_are_the_hosts_with_what_they_tell_of_themselves(renting: Renting, given: dict[str, str]) -> None:
    offers = await renting.provider.offers()
    assert {offer.ref["host"] for offer in offers} == set(given["hosts"].split(", "))
    for offer in offers:
        assert (offer.resource_id, offer.gpu_type, offer.gpu_count) == ("gpu-rtx4090", "NVIDIA GeForce RTX 4090", 1)
        assert (offer.vram_gb, offer.hourly_rate, offer.available) == (24.0, HOURLY_RATE, True)
        assert offer.cpu_cores and offer.ram_gb and offer.storage_gb


async def test_a_host_that_is_off_is_not_offered_and_makes_lists_fail(given: dict[str, str]) -> None:
    first = given["hosts"].split(", ")[0]
    provider = Ssh(Account("", given | {"hosts": f"{first}, 127.0.0.1:9"}))
    assert [offer.ref["host"] for offer in await provider.offers()] == [first]
    with pytest.raises(ResourceUnavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
        await provider.machines()


async def test_a_host_at_work_has_no_capacity_until_its_command_has_ended(renting: Renting) -> None:
    offer = await renting.cheapest()
    first = await renting.provider.rent(offer, order("sh", "-c", "while ! test -e stop; do sleep 0.02; done"))
    assert not next(one for one in await renting.provider.offers() if one.ref == offer.ref).available
    with pytest.raises(NoCapacity, match="at work on another job"):
        await renting.provider.rent(offer, order())
    (renting.behind(first).home / "stop").touch()
    await renting.becomes(first.id, MachineState.ENDED)
    await renting.provider.rent(offer, order())


async def test_a_name_is_started_once_even_by_many_at_once(renting: Renting) -> None:
    offer, wanted = await renting.cheapest(), order("sh", "-c", "echo x >> ../../../../starts; sleep 60")
    rented = await asyncio.gather(*(renting.provider.rent(offer, wanted) for _ in range(4)))
    assert len({machine.id for machine in rented}) == 1
    home = renting.behind(rented[0]).home.parents[3]
    await until(home / "starts")
    assert (home / "starts").read_text() == "x\n"


async def test_two_jobs_never_share_a_host(renting: Renting) -> None:
    offer = await renting.cheapest()
    told = await asyncio.gather(*(renting.provider.rent(offer, order()) for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["NoCapacity", "NoCapacity", "Rented"]


async def test_a_released_machine_leaves_no_process_and_no_file(renting: Renting) -> None:
    machine = await renting.rent("sh", "-c", "sleep 61 & echo $! > child; touch ready; wait", SECRET="s")
    home = renting.behind(machine).home
    await until(home / "ready")
    assert (home / "environment").stat().st_mode & 0o077 == 0
    child = int((home / "child").read_text())
    await renting.provider.release(machine.id)
    await renting.goes(machine.name)
    assert not home.exists()
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


async def test_a_command_may_save_its_work_before_it_ends(renting: Renting) -> None:
    script = 'trap "touch ../../../../saved; exit 0" TERM; touch ready; while :; do sleep 0.02; done'
    machine = await renting.rent("sh", "-c", script)
    home = renting.behind(machine).home
    await until(home / "ready")
    await renting.provider.release(machine.id)
    await renting.goes(machine.name)
    assert (home.parents[3] / "saved").exists()


async def test_the_host_ends_a_command_at_its_deadline(renting: Renting) -> None:
    wanted = order("sleep", "60").model_copy(update={"max_seconds": 1})
    machine = await renting.provider.rent(await renting.cheapest(), wanted)
    assert (await renting.becomes(machine.id, MachineState.ENDED)).exit_code == 143


async def test_a_python_without_the_trainer_is_said_to_lack_it(given: dict[str, str], renting: Renting) -> None:
    bare = Ssh(Account("", given | {"python": "/no/such/python"}))
    offer, *_ = await bare.offers()
    assert not offer.available and "peft-studio[train]" in offer.name
    with pytest.raises(NoCapacity, match=r"pip install 'peft-studio\[train\]'"):
        await bare.rent(offer, order("python", "-m", "peft_studio.remote"))
    assert renting.cloud.machines == {}


async def test_a_python_below_the_home_is_found(given: dict[str, str], renting: Renting) -> None:
    offer = await renting.cheapest()
    here = Ssh(Account("", given | {"python": "~/train/bin/python"}))
    first = await renting.provider.rent(
        offer, order("sh", "-c", "mkdir -p ../../../../train/bin; touch ready; sleep 60")
    )
    home = renting.behind(first).home
    await until(home / "ready")
    (home.parents[3] / "train" / "bin" / "python").symlink_to(sys.executable)
    await here.release(first.id)
    await renting.goes(first.name)
    machine = await here.rent(offer, order("python", "-c", "pass"))
    assert (await renting.becomes(machine.id, MachineState.ENDED)).exit_code == 0


async def test_the_program_of_rented_machines_is_there(renting: Renting) -> None:
    machine = await renting.rent("python", "-m", "peft_studio.remote")
    ended = await renting.becomes(machine.id, MachineState.ENDED)
    assert ended.exit_code == 2
    assert "PEFT_STUDIO_CLAIM" in (renting.behind(machine).home / "console.log").read_text()


async def test_the_command_runs_in_a_home_of_its_own_with_the_hosts_python(renting: Renting) -> None:
    code = "import os, pathlib, sys; pathlib.Path.home().joinpath('said').write_text(os.environ['HF_HOME'])"
    machine = await renting.rent("python", "-c", code)
    await renting.becomes(machine.id, MachineState.ENDED)
    home = renting.behind(machine).home
    assert (home / "said").read_text() == str(home.parents[3] / ".cache" / "huggingface")


async def test_a_host_with_another_key_is_not_trusted(given: dict[str, str]) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    for known_hosts in (f"{given['hosts'].split(', ')[0].join(('[', ']'))} {other}", f"elsewhere {other}"):
        with pytest.raises(CredentialRefused, match="another host key") as caught:
            await Ssh(Account("", given | {"known_hosts": known_hosts})).machines()
        assert caught.value.details["field"] == "credentials.known_hosts"


async def test_a_host_that_was_taken_out_of_the_credentials_is_not_taken_for_an_empty_one(
    given: dict[str, str], renting: Renting
) -> None:
    machine = await renting.rent()
    others = [host for host in given["hosts"].split(", ") if not machine.id.startswith(host)]
    provider = Ssh(Account("", given | {"hosts": " ".join(others)}))
    for call in provider.machine, provider.release:
        with pytest.raises(ResourceUnavailable, match="connect again with this host"):
            await call(machine.id)


async def test_connecting_logs_in_to_every_host(renting: Renting, given: dict[str, str]) -> None:
    platforms = Platforms(CredentialsInMemory(), Settings())

    async def connect(**changed: str) -> PlatformStatus:
        values = {name: SecretStr(value) for name, value in (given | changed).items()}
        return (await platforms.connect("ssh", values)).status

    assert await connect() is PlatformStatus.CONNECTED
    assert await connect(private_key=given["private_key"] + "\n") is PlatformStatus.CONNECTED
    with pytest.raises(CredentialRefused) as caught:
        await connect(user="somebody-else")
    assert caught.value.details == {"platform": "ssh", "field": "credentials.private_key"}
    with pytest.raises(ResourceUnavailable):
        await connect(hosts=f"{given['hosts']}, 127.0.0.1:9")
    with pytest.raises(InvalidConfig, match="python"):
        await connect(python="/no/such/python")
    renting.fail(FaultKind.REVOKED_KEY)
    assert (await platforms.verify("ssh")).status is PlatformStatus.ERROR


async def test_neither_the_key_nor_the_environment_is_in_a_log_or_a_list_of_processes(
    renting: Renting, given: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary-5d1e"
    with caplog.at_level(logging.DEBUG):
        machine = await renting.rent("sh", "-c", "touch ready; sleep 60", CLAIM=canary)
        await until(renting.behind(machine).home / "ready")
        processes = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
        await renting.provider.release(machine.id)
    secret = given["private_key"].splitlines()[1]
    assert canary not in caplog.text and secret not in caplog.text
    assert not any(canary.encode() in line for line in processes)
    assert secret not in repr(logins(given)) and given["user"] in repr(logins(given))


@pytest.mark.parametrize(
    ("hosts", "places"),
    [
        ("gpu1", ["gpu1"]),
        ("gpu1:22, gpu2.lan:2222", ["gpu1", "gpu2.lan:2222"]),
        ("[::1]:2222 [::1]", ["[::1]:2222", "[::1]"]),
    ],
)
def test_hosts_are_read_with_their_ports(hosts: str, places: list[str]) -> None:
    found: list[Login] = logins({"hosts": hosts, "user": "u", "private_key": "k", "known_hosts": "h"})
    assert [login.address for login in found] == places
