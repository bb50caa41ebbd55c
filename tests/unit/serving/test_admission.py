"""What a platform cannot do with an adapter is refused before the platform is asked, with the field."""

from pathlib import Path

import pytest

from infra.deploying.admission import check_host
from infra.hosts.base import Wanted
from infra.hosts.fireworks import Fireworks
from infra.hosts.huggingface import HuggingFace
from infra.hosts.replicate import Replicate
from infra.providers.base import Account
from infra.simulators.replicate import MODEL, VERSION
from peft_studio.deployments import DeploymentConfig
from peft_studio.errors import InvalidConfig

NOWHERE = Account("http://127.0.0.1:9", {"api_key": "k"})
WANTED = Wanted(name="pst-one", folder=Path("/a"), base_model="org/model", rank=8, repository="me/one", commit="c" * 40)


def test_what_is_fetched_from_the_hub_must_be_what_lies_there() -> None:
    check_host("huggingface", HuggingFace(NOWHERE), WANTED, converted=False)
    check_host("fireworks", Fireworks(NOWHERE), WANTED, converted=True)
    with pytest.raises(InvalidConfig, match="converted"):
        check_host("huggingface", HuggingFace(NOWHERE), WANTED, converted=True)
    with pytest.raises(InvalidConfig, match="publish it first"):
        unpublished = WANTED.model_copy(update={"repository": None})
        check_host("huggingface", HuggingFace(NOWHERE), unpublished, converted=False)


@pytest.mark.parametrize(("rank", "instance_type", "field"), [(2, None, "adapter_id"), (8, "h100", "instance_type")])
def test_fireworks_has_ranks_and_machines_of_its_own(rank: int, instance_type: str | None, field: str) -> None:
    config = DeploymentConfig(instance_type=instance_type)
    wanted = WANTED.model_copy(update={"rank": rank, "config": config})
    with pytest.raises(InvalidConfig) as refused:
        check_host("fireworks", Fireworks(NOWHERE), wanted, converted=False)
    assert refused.value.details["field"] == field


def test_replicate_takes_adapters_only_by_way_of_a_model_that_is_named() -> None:
    with pytest.raises(InvalidConfig, match="serves no bare LoRA") as refused:
        check_host("replicate", Replicate(NOWHERE), WANTED, converted=False)
    assert refused.value.details["field"] == "platform"
    named = Replicate(Account(NOWHERE.url, {"api_key": "k", "model": f"{MODEL}:{VERSION}"}))
    check_host("replicate", named, WANTED, converted=False)
    for config, field in (
        (DeploymentConfig(min_replicas=6, max_replicas=6), "min_replicas"),
        (DeploymentConfig(max_replicas=21, auto_scaling=True), "max_replicas"),
    ):
        with pytest.raises(InvalidConfig) as too_many:
            check_host("replicate", named, WANTED.model_copy(update={"config": config}), converted=False)
        assert too_many.value.details["field"] == field
