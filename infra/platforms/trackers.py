"""The rows of experiment trackers in the table of platforms."""

from infra.platforms.checks import Check, Values, basic, trackio_verdict, wandb_verdict
from infra.platforms.vendor import API_KEY, Vendor, optional, where
from peft_studio.platforms import CredentialField, Feature


def _wandb(values: Values) -> dict[str, str]:
    return basic("api", values["api_key"])


def _comet(values: Values) -> dict[str, str]:
    return {"Authorization": values["api_key"]}


def _trackio(values: Values) -> dict[str, str]:
    return {"X-Trackio-Write-Token": values["write_token"]}


def _mlflow(values: Values) -> dict[str, str]:
    if "token" in values:
        return {"Authorization": f"Bearer {values['token']}"}
    return basic(values.get("username", ""), values["password"]) if "password" in values else {}


_TRACK = (Feature.EXPERIMENTS,)
TRACKERS = (
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
        fields=(API_KEY, where("base_url", "Address of a server of your own (WANDB_BASE_URL).")),
        url_field="base_url",
        supported=_TRACK,
        docs="https://docs.wandb.ai/guides/track/environment-variables/",
    ),
    Vendor(
        "mlflow",
        "MLflow",
        _TRACK,
        Check("/api/2.0/mlflow/experiments/search", headers=_mlflow, method="POST", body={"max_results": 1}),
        fields=(
            where("tracking_uri", "Address of the tracking server (MLFLOW_TRACKING_URI).", required=True),
            optional("token", "Bearer token, where the server asks for one."),
            optional("username", "User, where the server asks for a password.", secret=False),
            optional("password", "That user's password."),
        ),
        url_field="tracking_uri",
        supported=_TRACK,
        docs="https://mlflow.org/docs/latest/self-hosting/",
    ),
    Vendor(
        "comet",
        "Comet",
        _TRACK,
        Check("/account-details", expects="userName", headers=_comet),
        "https://www.comet.com/api/rest/v2",
        fields=(API_KEY, where("base_url", "Address of a server's REST API of your own: https://…/api/rest/v2.")),
        url_field="base_url",
        supported=_TRACK,
        aliases=("comet_ml",),
        docs="https://www.comet.com/docs/v2/guides/experiment-management/configure-sdk/",
    ),
    # Without it, trackio's runs lie in the data directory; whoever knows the token may write, and anyone may look.
    Vendor(
        "trackio",
        "trackio",
        _TRACK,
        Check(
            "/api/get_run_mutation_status",
            expects="data",
            headers=_trackio,
            method="POST",
            body={},
            verdict=trackio_verdict,
        ),
        fields=(
            where("base_url", "Address of the server.", required=True),
            CredentialField(name="write_token", description="The server's TRACKIO_WRITE_TOKEN."),
        ),
        url_field="base_url",
        supported=_TRACK,
        docs="https://huggingface.co/docs/trackio",
    ),
    Vendor(
        "tensorboard",
        "TensorBoard",
        _TRACK,
        fields=(),
        supported=_TRACK,
        docs="https://www.tensorflow.org/tensorboard",
    ),
)
