"""Vendors of machines to train on, one module each."""

from collections.abc import Callable

from infra.providers.base import Account, Provider
from infra.providers.huggingface_jobs import HuggingFaceJobs
from infra.providers.kubernetes import Kubernetes
from infra.providers.lambda_cloud import LambdaCloud
from infra.providers.runpod import RunPod
from infra.providers.ssh import Ssh
from infra.providers.vast import Vast

# By the platform's name in infra/platforms/vendors.py. This machine is not among them: it is not rented.
PROVIDERS: dict[str, Callable[[Account], Provider]] = {
    "runpod": RunPod,
    "vast": Vast,
    "huggingface": HuggingFaceJobs,
    "kubernetes": Kubernetes,
    "ssh": Ssh,
    "lambda": LambdaCloud,
}
