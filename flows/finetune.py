"""
Fine-tuning, the sentence: validate, provision, train, release, upload, deploy when asked, evaluate, publish, convert.

    prefect deployment run 'finetune/default' --param config='{"base_model": "…", "dataset_path": "…"}'
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ParameterTypeError, Pause
from prefect.runtime import flow_run as current_flow_run

from infra.flow_runs import ENDED, ended_already, tag_current_run
from infra.jobs.heartbeats import alone
from infra.jobs.pausing import pause_if_asked, suspend
from infra.jobs.record import JobRecord
from infra.machines.jobs import JobMachines
from infra.settings import settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import MachineLost, OutOfMemory, StudioError
from peft_studio.jobs import JobResult, Phase, job_id_of, name_of
from peft_studio.plan import Plan
from peft_studio.run_dir import Request
from peft_studio.trainer.report import DISK_FULL
from tasks.convert import convert_for_target, stop_conversion
from tasks.deploy import deploy, withdraw
from tasks.evaluate import evaluate
from tasks.promote import promote
from tasks.provision import provision
from tasks.publish import publish
from tasks.release import release, release_whatever_is_left
from tasks.train import Trained, train
from tasks.upload import upload
from tasks.validate import validate


def name_of_run() -> str:
    """Name a run as its job."""
    return name_of(TrainingConfig.model_validate(current_flow_run.parameters["config"]))


def free_machine(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Release the machine of a run that was cancelled: its ``finally`` may never have run."""
    release_whatever_is_left(JobRecord(job_id_of(flow_run.id), settings()))


def stop_serving(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Withdraw the deployment of a job that was cancelled or failed after it had been deployed."""
    withdraw(JobRecord(job_id_of(flow_run.id), settings()))


def stop_converting(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Stop the export that a job had begun when it was cancelled."""
    stop_conversion(JobRecord(job_id_of(flow_run.id), settings()))


def note(record: JobRecord, error: StudioError) -> None:
    """Put an error that ends the job into its record."""
    record.fail(error.message, str(error.details.get("issue", "")), error.details.get("code", error.code))


def tell_why(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Put the reason of a failure into the job's record."""
    if state.message == ENDED:
        return
    error = state.result(raise_on_failure=False)
    record = JobRecord(job_id_of(flow_run.id), settings())
    if isinstance(error, StudioError):
        note(record, error)
    elif isinstance(error, ParameterTypeError):
        record.fail("The configuration cannot be understood.", str(error), "INVALID_CONFIG")
    elif isinstance(error, OSError) and error.errno in DISK_FULL:
        record.fail("The disk is full.", f"Make room, then retry the job ({error}).", "DISK_FULL")
    elif isinstance(error, TimeoutError):
        record.fail("A step of the job took too long.", state.message or "", "TIMED_OUT")
    else:
        record.fail("The job failed.", state.message or "", "INTERNAL_ERROR")


@flow(
    name="finetune",
    flow_run_name=name_of_run,
    on_failure=[tell_why, stop_serving],
    on_cancellation=[free_machine, stop_serving, stop_converting],
)
def finetune(config: TrainingConfig) -> JobResult | State:
    """Run one fine-tuning job, from its configuration to an evaluated adapter."""
    record = JobRecord.current()
    with alone(record.run.path):
        if end := ended_already():
            return end
        tag_current_run(config)
        try:
            return run_steps(config, record)
        except Pause as pause:
            release_whatever_is_left(record)
            suspend(record, pause)
        except StudioError as error:
            note(record, error)  # before the run has failed: the hooks after it are not certain to be run
            raise


def train_somewhere(plan: Plan, record: JobRecord) -> tuple[Trained, float | None]:
    """
    Train on one machine after another until it is done, and return what came of it and what the machines cost.

    A machine that is lost is replaced; after one with too little memory comes one with more.
    """
    beyond_gb, cost = 0.0, None
    while True:
        machine = provision(plan, beyond_gb)
        try:
            trained = train(plan, machine)
            break
        except MachineLost as lost:
            record.say(f"{lost.message} Another one is rented; training goes on from the last checkpoint.", "WARNING")
            record.enter(Phase.RECOVERING)
            JobMachines(record).note_loss(machine, lost.message)
        except OutOfMemory:
            if machine.vram_gb is None:
                raise
            beyond_gb = machine.vram_gb
            record.say(f"It takes a GPU with more than {beyond_gb:g} GB; one is looked for.", "WARNING")
        finally:
            cost = release(machine)
    if trained.job_id == record.job_id:
        JobMachines(record).note_speed(plan, trained.summary)
    return trained, cost


def run_steps(config: TrainingConfig, record: JobRecord) -> JobResult:
    """Go through the steps; ``Pause`` is raised where somebody wants the job to pause before or while it trains."""
    pause_if_asked(record)
    plan = validate(config)
    pause_if_asked(record)
    trained, cost = train_somewhere(plan, record)
    record.run.withdraw(Request.PAUSE)  # what remains is short, and pausing would save nothing
    adapter = upload(trained, plan, cost)
    rule = config.deploy.only_if if config.deploy else None
    evaluation = evaluate(adapter, plan) if rule else None
    promotion = promote(adapter, rule, evaluation) if rule and evaluation else None
    passes = promotion is None or promotion.allowed
    if not passes:
        withdraw(record)  # an earlier attempt of this run may have come to another verdict, and died after it
    endpoint = deploy(adapter, plan) if config.deploy and passes else None
    evaluation = evaluation or evaluate(adapter, plan)
    publish(adapter, plan, evaluation)
    conversion = convert_for_target(adapter, plan)
    result = JobResult(
        adapter_id=adapter.adapter_id,
        artifact=adapter.artifact,
        training=trained.summary,
        evaluation=evaluation,
        cost=cost,
        reused_from=trained.job_id if trained.job_id != record.job_id else None,
        endpoint=endpoint,
        conversion=conversion,
        promotion=promotion,
        step_seconds=record.step_seconds(),
    )
    record.finish(result)
    return result
