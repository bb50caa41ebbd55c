"""The table of platforms: every name the studio knows, what it offers, and how its credentials are tried."""

from difflib import get_close_matches

from infra.platforms.checks import (
    Check,
    Values,
    fireworks_verdict,
    lambda_verdict,
    nothing,
    vast_verdict,
)
from infra.platforms.modal_check import ModalCheck
from infra.platforms.s3_check import S3Check
from infra.platforms.ssh_check import SshCheck
from infra.platforms.trackers import TRACKERS
from infra.platforms.vendor import API_KEY, Vendor, optional, where
from peft_studio.platforms import CredentialField, Feature

LOCAL = "local"


def _token(values: Values) -> dict[str, str]:
    return {"Authorization": f"Bearer {values['token']}"}


def _bearer_if_any(values: Values) -> dict[str, str]:
    return {"Authorization": f"Bearer {values['api_key']}"} if values.get("api_key") else {}


def _kubernetes_jobs(values: Values) -> str:
    return f"/apis/batch/v1/namespaces/{values.get('namespace', 'default')}/jobs?limit=1"


_RENT, _SERVE, _MODELS = (Feature.TRAINING,), (Feature.INFERENCE,), (Feature.MODELS,)

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
            optional(
                "namespace",
                "Organization that pays for jobs and endpoints; the token's owner by default.",
                secret=False,
            ),
        ),
        supported=(*_MODELS, Feature.REGISTRY, *_RENT, *_SERVE),
        docs="https://huggingface.co/docs/hub/security-tokens",
    ),
    Vendor(
        "kubernetes",
        "Kubernetes",
        _RENT,
        Check(_kubernetes_jobs, expects="items", headers=_token, certificates="ca_certificate"),
        fields=(
            where("url", "Address of the API server.", required=True),
            CredentialField(name="token", description="Bearer token of a service account that may manage jobs."),
            optional("namespace", "Where jobs run; 'default' by default.", secret=False),
            where("ca_certificate", "PEM of the authority that signed the API server's certificate."),
            where("hourly_rate", "What an hour of a GPU costs you, in US dollars; 0 by default."),
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
            where("hosts", "Your machines, with :PORT where it is not 22, and commas between them.", required=True),
            where("user", "Who logs in.", required=True),
            CredentialField(name="private_key", description="That user's private key, without a passphrase."),
            where("known_hosts", "The machines' own keys: lines of a known_hosts file.", required=True),
            where("python", "The Python that has peft-studio[train]; python3 by default."),
            where("hourly_rate", "What an hour of a machine costs you, in US dollars; 0 by default."),
        ),
        supported=_RENT,
        docs="https://man.openbsd.org/ssh-keyscan",
    ),
    Vendor(
        "s3",
        "S3",
        (Feature.REGISTRY,),
        S3Check(),
        fields=(
            CredentialField(name="access_key_id", description="Access key that may list and write where adapters go."),
            CredentialField(name="secret_access_key", description="That key's secret."),
            optional("session_token", "Session token, where the key is a temporary one."),
            optional("region", "Region of the buckets.", secret=False),
            where("endpoint_url", "Address of the service, if it is not Amazon's."),
        ),
        url_field="endpoint_url",
        supported=(Feature.REGISTRY,),
        docs="https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html",
    ),
    Vendor(
        "together",
        "Together AI",
        _SERVE,
        Check("/v1/projects?limit=1", expects="data"),
        "https://api.together.ai",
        fields=(
            API_KEY,
            optional("project", "Id or slug of the project, where the account has several.", secret=False),
            optional("hub_token", "Token of the Hugging Face Hub that reads adapters in private repositories."),
        ),
        supported=_SERVE,
        docs="https://docs.together.ai/docs/api-keys-authentication",
    ),
    Vendor(
        "replicate",
        "Replicate",
        _SERVE,
        Check("/account", expects="username"),
        "https://api.replicate.com/v1",
        fields=(
            API_KEY,
            optional("model", "OWNER/NAME:VERSION of a model there that takes a LoRA as an input.", secret=False),
            optional("adapter_input", "That model's input for the adapter; lora_weights by default.", secret=False),
        ),
        supported=_SERVE,
        docs="https://replicate.com/docs/topics/security/api-tokens",
    ),
    Vendor(
        "predibase",
        "Predibase",
        _SERVE,
        Check("/v2/deployments", expects="data"),
        "https://api.app.predibase.com",
        supported=_SERVE,
        docs="https://docs.predibase.com",
    ),
    Vendor(
        "fireworks",
        "Fireworks AI",
        _SERVE,
        Check("/v1/accounts?pageSize=1", expects="accounts", verdict=fireworks_verdict),
        "https://api.fireworks.ai",
        fields=(API_KEY, optional("account", "Id of the account, where the key opens several.", secret=False)),
        supported=_SERVE,
        docs="https://docs.fireworks.ai/getting-started/quickstart",
    ),
    Vendor(
        "modal",
        "Modal",
        _SERVE,
        ModalCheck(),
        fields=(
            CredentialField(name="token_id", description="Id of a token of the workspace, ak-….", secret=False),
            CredentialField(name="token_secret", description="That token's secret, as-…."),
            optional("hub_token", "Token of the Hugging Face Hub that reads what is not public."),
        ),
        supported=_SERVE,
        docs="https://modal.com/docs/reference/modal.config",
    ),
    Vendor(
        "vllm",
        "vLLM",
        _SERVE,
        Check("/v1/models", expects="data", headers=_bearer_if_any),
        fields=(
            where("base_url", "Address of the server: http://host:8000.", required=True),
            optional("api_key", "What the server was started with as --api-key."),
            where("adapters_path", "Where the server sees the studio's folder of adapters, if not where it lies."),
        ),
        url_field="base_url",
        supported=_SERVE,
        docs="https://docs.vllm.ai/en/stable/features/lora/",
    ),
    Vendor(
        "lorax",
        "LoRAX",
        _SERVE,
        Check("/info", expects="model_id", headers=_bearer_if_any),
        fields=(
            where("base_url", "Address of the server: http://host:8080.", required=True),
            optional("api_key", "What a proxy before the server asks for; LoRAX knows no keys."),
            where("adapters_path", "Where the server sees the studio's folder hosted/lorax, if not where it lies."),
        ),
        url_field="base_url",
        supported=_SERVE,
        docs="https://loraexchange.ai/models/adapters/",
    ),
    *TRACKERS,
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
        fields=(where("base_url", "Address of the daemon; http://localhost:11434 by default."),),
        url_field="base_url",
        supported=(*_MODELS, *_SERVE),
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
