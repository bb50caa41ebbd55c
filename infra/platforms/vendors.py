"""The table of platforms: every name the studio knows, what it offers, and how its credentials are tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from infra.platforms.checks import (
    Check,
    Trial,
    Values,
    basic,
    fireworks_verdict,
    lambda_verdict,
    nothing,
    vast_verdict,
    wandb_verdict,
)
from infra.platforms.ssh_check import SshCheck
from peft_studio.platforms import CredentialField, Feature

LOCAL = "local"
API_KEY = CredentialField(name="api_key", description="An API key of the account.")


@dataclass(frozen=True)
class Vendor:
    """One platform; ``url_field`` names the credential that says where it is, for those that users run themselves."""

    name: str
    display_name: str
    features: Sequence[Feature]
    check: Trial | None = None
    url: str | None = None
    fields: Sequence[CredentialField] = (API_KEY,)
    url_field: str | None = None
    supported: Sequence[Feature] = ()
    aliases: Sequence[str] = ()
    docs: str | None = None

    def blamed(self, values: Values) -> str:
        """Name the field that a refusal is about: the secret that was given, or what should have been one."""
        secret = [field.name for field in self.fields if field.secret]
        return next((name for name in secret if name in values), next(iter(secret), self.url_field or ""))


def _token(values: Values) -> dict[str, str]:
    return {"Authorization": f"Bearer {values['token']}"}


def _wandb(values: Values) -> dict[str, str]:
    return basic("api", values["api_key"])


def _comet(values: Values) -> dict[str, str]:
    return {"Authorization": values["api_key"]}


def _mlflow(values: Values) -> dict[str, str]:
    if "token" in values:
        return _token(values)
    return basic(values.get("username", ""), values["password"]) if "password" in values else {}


def _kubernetes_jobs(values: Values) -> str:
    return f"/apis/batch/v1/namespaces/{values.get('namespace', 'default')}/jobs?limit=1"


def _where(name: str, description: str, *, required: bool = False) -> CredentialField:
    return CredentialField(name=name, description=description, required=required, secret=False)


def _optional(name: str, description: str, *, secret: bool = True) -> CredentialField:
    return CredentialField(name=name, description=description, required=False, secret=secret)


_RENT, _SERVE, _MODELS, _TRACK = (Feature.TRAINING,), (Feature.INFERENCE,), (Feature.MODELS,), (Feature.EXPERIMENTS,)

_ALL = (
    Vendor(LOCAL, "This machine", tuple(Feature), fields=(), supported=tuple(Feature)),
    # Listing pods rather than the account's SSH keys: it is what a key must be allowed to do to be of use here.
    Vendor(
        "runpod",
        "RunPod",
        _RENT + _SERVE,
        Check("/v2/pods", expects="pods"),
        "https://api.runpod.io",
        supported=_RENT,
        docs="https://docs.runpod.io/get-started/api-keys",
    ),
    Vendor(
        "lambda",
        "Lambda Cloud",
        _RENT,
        Check("/instance-types", expects="data", verdict=lambda_verdict),
        "https://cloud.lambda.ai/api/v1",
        supported=_RENT,
        aliases=("lambda_labs",),
        docs="https://docs.lambda.ai/public-cloud/cloud-api/",
    ),
    # Without the slash at the end the request is sent on to another host.
    Vendor(
        "vast",
        "Vast.ai",
        _RENT,
        Check("/users/current/", expects="id", verdict=vast_verdict),
        "https://console.vast.ai/api/v0",
        supported=_RENT,
        aliases=("vast_ai",),
        docs="https://docs.vast.ai/api-reference/authentication",
    ),
    Vendor(
        "huggingface",
        "Hugging Face",
        (Feature.MODELS, Feature.REGISTRY, Feature.TRAINING, Feature.INFERENCE),
        Check("/api/whoami-v2", expects="name"),
        "https://huggingface.co",
        fields=(
            API_KEY,
            _optional("namespace", "Organization that pays for jobs; the token's owner by default.", secret=False),
        ),
        supported=_MODELS + _RENT,
        docs="https://huggingface.co/docs/hub/security-tokens",
    ),
    Vendor(
        "kubernetes",
        "Kubernetes",
        _RENT,
        Check(_kubernetes_jobs, expects="items", headers=_token, certificates="ca_certificate"),
        fields=(
            _where("url", "Address of the API server.", required=True),
            CredentialField(name="token", description="Bearer token of a service account that may manage jobs."),
            _optional("namespace", "Where jobs run; 'default' by default.", secret=False),
            _where("ca_certificate", "PEM of the authority that signed the API server's certificate."),
            _where("hourly_rate", "What an hour of a GPU costs you, in US dollars; 0 by default."),
        ),
        url_field="url",
        supported=_RENT,
        docs="https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/",
    ),
    Vendor(
        "ssh",
        "SSH",
        _RENT,
        SshCheck(),
        fields=(
            _where("hosts", "Your machines, with :PORT where it is not 22, and commas between them.", required=True),
            _where("user", "Who logs in.", required=True),
            CredentialField(name="private_key", description="That user's private key, without a passphrase."),
            _where("known_hosts", "The machines' own keys: lines of a known_hosts file.", required=True),
            _where("python", "The Python that has peft-studio[train]; python3 by default."),
            _where("hourly_rate", "What an hour of a machine costs you, in US dollars; 0 by default."),
        ),
        supported=_RENT,
        docs="https://man.openbsd.org/ssh-keyscan",
    ),
    Vendor(
        "together",
        "Together AI",
        _SERVE,
        Check("/v1/projects?limit=1", expects="data"),
        "https://api.together.ai",
        docs="https://docs.together.ai/docs/api-keys-authentication",
    ),
    Vendor(
        "replicate",
        "Replicate",
        _SERVE,
        Check("/account", expects="username"),
        "https://api.replicate.com/v1",
        docs="https://replicate.com/docs/topics/security/api-tokens",
    ),
    Vendor(
        "predibase",
        "Predibase",
        _SERVE,
        Check("/v2/deployments", expects="data"),
        "https://api.app.predibase.com",
        docs="https://docs.predibase.com",
    ),
    Vendor(
        "fireworks",
        "Fireworks AI",
        _SERVE,
        Check("/v1/accounts?pageSize=1", expects="accounts", verdict=fireworks_verdict),
        "https://api.fireworks.ai",
        docs="https://docs.fireworks.ai/getting-started/quickstart",
    ),
    Vendor(
        "wandb",
        "Weights & Biases",
        _TRACK,
        Check(
            "/graphql",
            expects="data",
            headers=_wandb,
            method="POST",
            body={"query": "query Viewer { viewer { username entity } }"},
            verdict=wandb_verdict,
        ),
        "https://api.wandb.ai",
        fields=(API_KEY, _where("base_url", "Address of a server of your own.")),
        url_field="base_url",
        docs="https://docs.wandb.ai/guides/track/environment-variables/",
    ),
    Vendor(
        "mlflow",
        "MLflow",
        _TRACK,
        Check("/api/2.0/mlflow/experiments/search", headers=_mlflow, method="POST", body={"max_results": 1}),
        fields=(
            _where("tracking_uri", "Address of the tracking server.", required=True),
            _optional("token", "Bearer token, where the server asks for one."),
            _optional("username", "User, where the server asks for a password.", secret=False),
            _optional("password", "That user's password."),
        ),
        url_field="tracking_uri",
        docs="https://mlflow.org/docs/latest/self-hosting/",
    ),
    Vendor(
        "comet",
        "Comet",
        _TRACK,
        Check("/account-details", expects="userName", headers=_comet),
        "https://www.comet.com/api/rest/v2",
        aliases=("comet_ml",),
        docs="https://www.comet.com/docs/v2/guides/experiment-management/configure-sdk/",
    ),
    Vendor(
        "civitai",
        "Civitai",
        _MODELS,
        Check("/me", expects="id"),
        "https://civitai.com/api/v1",
        supported=_MODELS,
        docs="https://developer.civitai.com",
    ),
    Vendor(
        "ollama",
        "Ollama",
        (Feature.MODELS, Feature.INFERENCE),
        Check("/api/version", expects="version", headers=nothing),
        "http://localhost:11434",
        fields=(_where("base_url", "Address of the daemon; http://localhost:11434 by default."),),
        url_field="base_url",
        supported=_MODELS,
        docs="https://docs.ollama.com/api",
    ),
)
VENDORS = {vendor.name: vendor for vendor in _ALL}
_BY_NAME = {name: vendor for vendor in _ALL for name in (vendor.name, *vendor.aliases)}


def vendor_named(name: str) -> Vendor | None:
    """Look a platform up by its name or one of its other names, however it is capitalised."""
    return _BY_NAME.get(name.lower())


def names(feature: Feature) -> list[str]:
    """Name the platforms that offer something, ``local`` first."""
    return [vendor.name for vendor in _ALL if feature in vendor.features]


def likely(name: str) -> str:
    """Guess which platform was meant, as an addition to a sentence; nothing where none is close."""
    close = get_close_matches(name.lower()[:64], _BY_NAME, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
