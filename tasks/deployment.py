"""The steps of a deployment: asked for, waited for, and seen to have an effect."""

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.credentials import CredentialsInPrefect
from infra.deploying.bringing import Bringing
from infra.deploying.hosting import Hosting
from infra.serving.records import DeploymentsInPrefect
from infra.settings import settings


@task(name="place", cache_policy=NO_CACHE)
def place(deployment_id: str) -> None:
    """Ask the platform for the deployment; done twice it is the same one."""
    asyncio.run(bringing(deployment_id).place())


@task(name="wait", cache_policy=NO_CACHE)
def wait(deployment_id: str) -> None:
    """Wait until the adapter answers there."""
    asyncio.run(bringing(deployment_id).wait())


@task(name="effect test", cache_policy=NO_CACHE)
def see_effect(deployment_id: str) -> None:
    """Compare what the adapter says there with what it said at the end of its training."""
    asyncio.run(bringing(deployment_id).prove())


def clear_away(deployment_id: str, error: str) -> None:
    """Take off what is left of a deployment that failed, and say why it did."""
    asyncio.run(bringing(deployment_id).give_up(error))


def withdraw(deployment_id: str, reason: str) -> None:
    """Take a deployment off that is not wanted any more."""
    asyncio.run(bringing(deployment_id).withdraw(reason))


def bringing(deployment_id: str) -> Bringing:
    """Return what brings a deployment of this studio about."""
    hosting = Hosting(CredentialsInPrefect(), settings())
    return Bringing(deployment_id, DeploymentsInPrefect(), hosting, settings())
