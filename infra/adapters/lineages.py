"""Lineages of adapters: drawn up when a job stores its adapter, kept in its folder and in the run directory."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from infra.adapters.store import adapter_id_of
from infra.machines.receipts import receipts_of
from infra.planning import capabilities
from infra.settings import Settings
from peft_studio.events import now
from peft_studio.jobs import Evaluation, TrainingSummary
from peft_studio.lineage import LINEAGE, BaseOrigin, DataOrigin, Lineage, MachineOrigin
from peft_studio.plan import Plan
from peft_studio.promotion import Promotion
from peft_studio.run_dir import RunDir, replace_file


def draw_up(
    job_id: str, plan: Plan, trained_by: str, summary: TrainingSummary, cost: float | None, settings: Settings
) -> Lineage:
    """Say what a job's adapter came from; of the files, whoever copies them tells."""
    config, model, dataset = plan.config, plan.model, plan.dataset
    return Lineage(
        adapter_id=adapter_id_of(job_id),
        job_id=job_id,
        trained_by=trained_by,
        created_at=now(),
        base_model=BaseOrigin(
            id=config.base_model,
            source=config.model_source,
            revision=model.revision,
            architecture=model.architecture,
            license=model.license,
            chat_template_sha256=model.chat_template_sha256,
        ),
        dataset=DataOrigin(path=config.dataset_path, sha256=dataset.sha256, format=dataset.format, rows=dataset.rows),
        config=config,
        seed=config.seed,
        versions=summary.versions,
        machine=_machine(settings.run_dir(trained_by), plan, settings),
        cost=cost,
        training=summary,
        files={},
    )


def read_lineage(adapter: Path) -> Lineage | None:
    """Return the lineage that lies in an adapter's folder; None where there is none that can be read."""
    try:
        return Lineage.model_validate_json((adapter / LINEAGE).read_bytes())
    except (OSError, ValidationError):
        return None


def add_evaluation(adapter: Path, run: RunDir, evaluation: Evaluation) -> None:
    """Add to an adapter's lineage what the adapter is worth, in its folder and in the run directory."""
    _add(adapter, run, "evaluation", evaluation)


def add_promotion(adapter: Path, run: RunDir, promotion: Promotion) -> None:
    """Add to an adapter's lineage what the gate made of it, in both places."""
    _add(adapter, run, "promotion", promotion)


def _add(adapter: Path, run: RunDir, field: str, value: BaseModel) -> None:
    if lineage := read_lineage(adapter):
        judged = lineage.model_copy(update={field: value})
        replace_file(adapter / LINEAGE, judged.model_dump_json(indent=2).encode())
        run.write(LINEAGE, judged)


def _machine(run: RunDir, plan: Plan, settings: Settings) -> MachineOrigin:
    if receipts := receipts_of(run):
        last = receipts[-1]
        gpus = [offer.gpu_type for offer in plan.offers if offer.resource_id == last.resource_id and offer.gpu_type]
        return MachineOrigin(provider=last.provider, resource_id=last.resource_id, gpus=gpus[:1])
    here = capabilities.load(settings)
    return MachineOrigin(
        provider="local",
        gpus=[gpu.name for gpu in here.gpus] if here else [],
        cpu_cores=here.cpu_cores if here else None,
    )
