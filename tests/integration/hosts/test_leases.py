"""Leases and leftovers: what a scheduled look does about deployments on a simulated vLLM, by the clock of records."""

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.credentials import Credentials, CredentialsInMemory
from infra.deploying.bringing import Bringing
from infra.deploying.guard import DeploymentGuard
from infra.deploying.hosting import Hosting
from infra.deploying.runs import DeployRunsInMemory
from infra.deploying.sweep import DeploymentSweep
from infra.machines.sweep import SweepReport
from infra.serving.records import Deployment, DeploymentsInMemory
from infra.settings import Settings
from infra.simulators.vllm import VllmServer, create_vllm
from peft_studio.deployments import DeploymentStatus
from peft_studio.errors import Conflict
from peft_studio.events import now
from tests.loopback import on_loopback

pytestmark = pytest.mark.anyio
ID = "deploy_" + "0f" * 16


class Stage:
    """A studio's records and a server, looked through by hand."""

    def __init__(self, folder: Path, server: VllmServer):
        self.server = server
        self.records = DeploymentsInMemory()
        self.credentials = CredentialsInMemory()
        self.runs = DeployRunsInMemory()
        self.settings = Settings(data_dir=folder / "data", lease_warning_minutes=30)
        self.hosting = Hosting(self.credentials, self.settings)
        self.adapter = folder / "adapter"
        self.adapter.mkdir()
        (self.adapter / "adapter_config.json").write_text('{"r": 8}')
        self.told: list[str] = []

    async def running(self, **changes: object) -> Deployment:
        """Put a deployment on record and on the server."""
        record = Deployment(
            deployment_id=ID,
            adapter_id="adapter_1",
            adapter=str(self.adapter),
            base_model="org/model",
            platform="vllm",
            chat=True,
        )
        host = await self.hosting.host("vllm")
        hosted = await host.deploy(await self.hosting.wanted(record))
        seen = {"status": DeploymentStatus.RUNNING, "hosted": hosted, "endpoint": hosted.endpoint}
        record = record.model_copy(update={**seen, "flow_run_id": await self.runs.create(record), **changes})
        await self.records.add(record)
        return record

    async def look(self) -> SweepReport:
        report = SweepReport()
        sweep = DeploymentSweep(
            self.records, self.hosting, self.runs, self.settings, lambda event, _: self.told.append(event)
        )
        await sweep.look(report)
        return report


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    stage = Stage(tmp_path, VllmServer())
    with on_loopback(create_vllm(stage.server)) as url:
        given = {"base_url": SecretStr(url)}
        await stage.credentials.put(Credentials(platform="vllm", verified_at=now(), values=given))
        yield stage


async def test_what_has_no_lease_or_a_long_one_is_kept(stage: Stage) -> None:
    await stage.running()
    report = await stage.look()
    assert (len(report.kept), report.ended, report.issues, stage.told) == (1, [], [], [])
    assert (await stage.records.get(ID)).warning is None


async def test_the_end_of_a_lease_is_warned_of_once_and_then_it_is_taken_off(stage: Stage) -> None:
    record = await stage.running(expires_at=now() + timedelta(minutes=20))
    for _ in range(2):
        await stage.look()
    warned = await stage.records.get(ID)
    assert "renew it" in str(warned.warning) and warned.status is DeploymentStatus.RUNNING
    assert stage.told == ["lease-ending"] and len(stage.server.adapters) == 1

    await stage.records.replace(record.model_copy(update={"expires_at": now()}))
    report = await stage.look()
    ended = await stage.records.get(ID)
    assert ended.status is DeploymentStatus.STOPPED and "nobody had renewed it" in str(ended.reason)
    assert stage.server.adapters == {} and stage.told[1:] == ["lease-ended"] and ended.hosted is None
    assert len(report.ended) == 1 and not report.issues


async def test_a_local_deployment_with_a_lease_is_stopped_at_its_end(stage: Stage) -> None:
    record = Deployment(
        deployment_id=ID, adapter_id="adapter_1", adapter="/a", base_model="m", chat=True, expires_at=now()
    )
    await stage.records.add(record)
    await stage.look()
    assert (await stage.records.get(ID)).status is DeploymentStatus.STOPPED


@pytest.mark.parametrize("status", [DeploymentStatus.FAILED, DeploymentStatus.STOPPED, None])
async def test_what_this_studio_has_there_and_does_not_want_is_removed(
    stage: Stage, status: DeploymentStatus | None
) -> None:
    record = await stage.running()
    if status is None:
        await stage.records.delete(ID)
    else:
        await stage.records.replace(record.model_copy(update={"status": status}))
    others = {"pst-ffffff-0f0f": "/of/another/studio", "somebodys": "/adapter"}
    stage.server.adapters |= others
    report = await stage.look()
    assert stage.server.adapters == others
    assert (len(report.ended), len(report.strange)) == (1, 2)
    assert all(one.hosted is None for one in await stage.records.all())


async def test_what_cannot_be_removed_is_reported(stage: Stage) -> None:
    record = await stage.running(expires_at=now())
    stage.server.refusals = 1000
    await stage.credentials.delete("vllm")
    report = await stage.look()
    assert record.deployment_id in report.issues[0] and "connect" in report.issues[0]


async def test_what_a_restarted_server_has_forgotten_is_loaded_again(stage: Stage) -> None:
    await stage.running()
    stage.server.adapters.clear()
    await stage.look()
    assert len(stage.server.adapters) == 1
    assert (await stage.records.get(ID)).status is DeploymentStatus.RUNNING


async def test_one_whose_request_died_before_its_run_was_started_gets_one(stage: Stage) -> None:
    await stage.running(flow_run_id=None, status=DeploymentStatus.DEPLOYING, created_at=now() - timedelta(minutes=6))
    stage.runs.states.clear()
    await stage.look()
    assert (await stage.records.get(ID)).flow_run_id in stage.runs.states


class RenewedWhileRead(DeploymentsInMemory):
    """Records of which one is renewed right after all were read."""

    async def all(self) -> Sequence[Deployment]:
        found = await super().all()
        for record in found:
            await self.replace(record.model_copy(update={"expires_at": now() + timedelta(hours=2)}))
        return found


async def test_one_that_is_renewed_while_the_sweep_looks_is_kept(stage: Stage) -> None:
    stage.records = RenewedWhileRead()
    await stage.running(expires_at=now() - timedelta(minutes=1))
    report = await stage.look()
    assert (await stage.records.get(ID)).status is DeploymentStatus.RUNNING
    assert len(stage.server.adapters) == 1 and not report.ended and stage.told == []


async def test_one_whose_run_ended_without_a_word_is_given_up_and_taken_off(stage: Stage) -> None:
    record = await stage.running(status=DeploymentStatus.DEPLOYING)
    await stage.look()
    assert (await stage.records.get(ID)).status is DeploymentStatus.DEPLOYING

    assert record.flow_run_id is not None
    await stage.runs.cancel(record.flow_run_id)
    report = await stage.look()
    left = await stage.records.get(ID)
    assert left.status is DeploymentStatus.FAILED and "deploy the adapter again" in str(left.error)
    assert stage.server.adapters == {} and len(report.ended) == 1


class OneBroken(DeploymentsInMemory):
    """Records of which the first cannot be read by its id."""

    async def get(self, deployment_id: str) -> Deployment:
        if deployment_id.endswith("bad"):
            raise ValueError("secret words")
        return await super().get(deployment_id)


async def test_a_record_that_cannot_be_read_keeps_no_lease_from_ending(stage: Stage) -> None:
    stage.records = OneBroken()
    bad = Deployment(deployment_id="deploy_bad", adapter_id="a", adapter="/a", base_model="m", chat=True)
    await stage.records.add(bad)
    await stage.running(expires_at=now())
    report = await stage.look()
    assert stage.server.adapters == {} and (await stage.records.get(ID)).status is DeploymentStatus.STOPPED
    assert len(report.issues) == 1 and "deploy_bad" in report.issues[0] and "secret" not in report.issues[0]


class LeavesOneOut(DeploymentsInMemory):
    """Records whose second reading lacks all, as a list does whose pages move while it is read."""

    reads = 0

    async def all(self) -> Sequence[Deployment]:
        self.reads += 1
        return [] if self.reads == 2 else await super().all()


async def test_what_one_reading_of_the_records_lacks_is_not_taken_off(stage: Stage) -> None:
    stage.records = LeavesOneOut()
    await stage.running()
    report = await stage.look()
    assert len(stage.server.adapters) == 1 and len(report.kept) == 1 and not report.ended


async def test_a_record_that_cannot_be_read_is_named_and_what_it_has_placed_is_left(stage: Stage) -> None:
    other = "deploy_" + "ee" * 16
    await stage.running()
    stage.records.values[ID] |= {"status": "molten"}
    await stage.records.add(
        Deployment(deployment_id=other, adapter_id="a", adapter="/a", base_model="m", chat=True, expires_at=now())
    )
    report = await stage.look()
    assert (await stage.records.get(other)).status is DeploymentStatus.STOPPED
    assert len(stage.server.adapters) == 1 and len(report.kept) == 1
    assert [issue for issue in report.issues if ID in issue] == report.issues and len(report.issues) == 1


async def test_an_account_is_kept_for_what_has_a_record_that_cannot_be_read_and_others_are_let_go_of(
    stage: Stage,
) -> None:
    await stage.running()
    stage.records.values[ID] |= {"status": "molten"}
    guard = DeploymentGuard(stage.records, stage.hosting, stage.settings)
    with pytest.raises(Conflict, match=ID):
        await guard.require_free("vllm")
    await guard.require_free("together")


async def test_a_run_whose_record_cannot_be_read_comes_to_its_end(stage: Stage) -> None:
    await stage.running()
    stage.records.values[ID] = "nothing"
    await Bringing(ID, stage.records, stage.hosting, stage.settings).withdraw("Its flow run was cancelled.")
    assert stage.records.values[ID] == "nothing" and len(stage.server.adapters) == 1
