"""Compute resources: machines that jobs can train on, and what they cost."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, SkipValidation

from api import resource_examples as examples
from api.openapi import documented
from api.wire import ResourceList, ResourcePricing
from infra.resources import Resources

TheResources = NamedDependency[SkipValidation[Resources]]


@get("/resources", summary="List resources", responses=documented(ResourceList, examples.RESOURCES, 404, 409))
async def list_resources(
    resources: TheResources,
    provider: Annotated[str | None, QueryParameter(description="Only this provider's machines.")] = None,
    available: Annotated[bool | None, QueryParameter(description="Only machines that take jobs, or do not.")] = None,
) -> ResourceList:
    """
    Return the machines that jobs can train on: this one, and what all connected providers offer.

    Prices are at most a minute old. A provider that is slow or fails holds up nobody: it is named with the reason.
    RunPod's machines with several GPUs are shown by its stock of single ones, to spare its limit of calls: a machine's
    pricing, a plan and a job ask for the machine itself.
    """
    found = await resources.list(provider, available)
    return ResourceList(resources=found.resources, unavailable_providers=found.unavailable)


@get(
    "/resources/{provider:str}/{resource_id:str}/pricing",
    summary="Get a resource's pricing",
    responses=documented(ResourcePricing, examples.PRICING, 404, 409),
)
async def get_pricing(resources: TheResources, provider: FromPath[str], resource_id: FromPath[str]) -> ResourcePricing:
    """Return what a machine costs, whether it takes jobs, and how many wait for it."""
    pricing, availability = await resources.pricing(provider, resource_id)
    return ResourcePricing(resource_id=resource_id, provider=provider, pricing=pricing, availability=availability)


ROUTES = [list_resources, get_pricing]
