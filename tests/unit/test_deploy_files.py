"""What is deployed is whole, as far as that shows without a cluster: names lead somewhere, templates are filled in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools.validation import is_valid_schema, validate
from prefect.utilities.templating import apply_values

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
TEMPLATE: dict[str, Any] = json.loads((DEPLOY / "work-pool.json").read_text())
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))


def named(kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in MANIFESTS if one["kind"] == kind}


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for line in text.splitlines() if line.strip() for name, _, rest in [line.partition(" ")]]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_made_of_files_that_exist_and_run_as_nobody_special(path: Path) -> None:
    found = instructions(path)
    copied = [source for name, rest in found if name == "COPY" for source in rest.split()[:-1]]
    assert copied and all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert not set(copied) & set(ignored)
    assert found[0][0] == "FROM" and [rest for name, rest in found if name == "USER"] == ["1000"]
    assert [name for name, _ in found].count("CMD") == 1 and "ENTRYPOINT" not in dict(found)
    json.loads(dict(found)["CMD"])


def test_images_install_extras_that_the_project_has() -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for path in DOCKERFILES:
        [asked] = re.findall(r"'\.\[([\w,]+)\]'", path.read_text())
        assert set(asked.split(",")) <= set(extras)


def test_every_account_role_and_claim_that_is_named_is_there() -> None:
    accounts = named("ServiceAccount")
    for one in MANIFESTS:
        assert one["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding") or (
            one["metadata"]["namespace"] in named("Namespace")
        )
        if one["kind"].endswith("Binding"):
            assert one["roleRef"]["name"] in named(one["roleRef"]["kind"])
            assert {subject["name"] for subject in one["subjects"]} <= accounts
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]
            assert pod["spec"]["serviceAccountName"] in accounts
            assert one["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    variables = TEMPLATE["variables"]["properties"]
    assert variables["service_account_name"]["default"] in accounts
    assert variables["data_claim"]["default"] in named("PersistentVolumeClaim")
    assert variables["namespace"]["default"] in named("Namespace")


def test_nobody_may_do_everything_or_read_secrets() -> None:
    rules = [rule for one in MANIFESTS for rule in one.get("rules", [])]
    assert len(rules) > 4
    for rule in rules:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        assert "secrets" not in rule["resources"]


def test_the_pools_template_is_one_that_prefect_takes() -> None:
    WorkPoolCreate(name="kubernetes", type="kubernetes", base_job_template=TEMPLATE)
    assert is_valid_schema(TEMPLATE["variables"], preprocess=False) is None
    assert validate({"gpus": -1}, TEMPLATE["variables"], raise_on_error=False)


def test_the_pools_template_makes_a_job_with_the_gpus_that_were_asked_for() -> None:
    properties = TEMPLATE["variables"]["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    given = defaults | {"gpus": 2, "name": "run", "command": "prefect flow-run execute"}
    filled = apply_values(TEMPLATE["job_configuration"], given)
    assert "{{" not in json.dumps(filled)
    pod = filled["job_manifest"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert placeholders == set(properties)


def test_the_deployment_is_one_of_the_flow_with_variables_that_the_pool_knows() -> None:
    described = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())
    usual = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    [deployment] = described["deployments"]
    assert described["prefect-version"] == usual["prefect-version"]
    assert deployment["entrypoint"] == usual["deployments"][0]["entrypoint"]
    [step] = described["pull"]
    folder = step["prefect.deployments.steps.set_working_directory"]["directory"]
    assert ("WORKDIR", folder) in instructions(DEPLOY / "Dockerfile.server")
    assert set(deployment["work_pool"]["job_variables"]) <= set(TEMPLATE["variables"]["properties"])
    assert f"prefect work-pool create {deployment['work_pool']['name']}" in (ROOT / "docs/kubernetes.md").read_text()
