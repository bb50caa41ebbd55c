"""Platforms: connect the studio to outside services, with a real check of the credentials, and disconnect it."""

from typing import Annotated

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, FromPath, SkipValidation

from api import examples
from api.openapi import documented
from api.wire import ConnectPlatform, PlatformConnected, PlatformDisconnected, PlatformList
from infra.platforms.connections import Platforms
from peft_studio.platforms import Platform

ThePlatforms = NamedDependency[SkipValidation[Platforms]]


@get("/platforms", summary="List platforms", responses=documented(PlatformList, examples.PLATFORMS))
async def list_platforms(platforms: ThePlatforms) -> PlatformList:
    """Return every platform the studio knows: whether it is connected, and what connecting takes."""
    return PlatformList(platforms=await platforms.list())


@get("/platforms/{platform_name:str}", summary="Get a platform", responses=documented(Platform, examples.PLATFORM, 404))
async def get_platform(platforms: ThePlatforms, platform_name: FromPath[str]) -> Platform:
    """Return one platform: whether it is connected, and what connecting takes."""
    return await platforms.get(platform_name)


@post(
    "/platforms/{platform_name:str}/connect",
    status_code=200,
    summary="Connect a platform",
    responses=documented(PlatformConnected, examples.PLATFORM_CONNECTED, 402, 403, 404, 413, 415),
)
async def connect_platform(
    data: Annotated[ConnectPlatform, Body(examples=[Example(value=examples.CONNECT)])],
    platforms: ThePlatforms,
    platform_name: FromPath[str],
) -> PlatformConnected:
    """
    Try credentials at the platform, and store them, encrypted, if it takes them.

    Connecting again replaces the credentials; where that fails, those before stay. Credentials that the platform
    refuses are AUTHENTICATION_FAILED with the status 400 and the `platform`; a 401 is about the request's own key.
    """
    platform = await platforms.connect(platform_name, data.credentials)
    return PlatformConnected(platform=platform.name, status=platform.status)


@post(
    "/platforms/{platform_name:str}/verify",
    status_code=200,
    summary="Check a platform's credentials again",
    responses=documented(Platform, examples.PLATFORM, 403, 404, 409),
)
async def verify_platform(platforms: ThePlatforms, platform_name: FromPath[str]) -> Platform:
    """Try the stored credentials again; the status is `error`, with the reason, where the platform refuses them."""
    return await platforms.verify(platform_name)


@delete(
    "/platforms/{platform_name:str}",
    status_code=200,
    summary="Disconnect a platform",
    responses=documented(PlatformDisconnected, examples.PLATFORM_DISCONNECTED, 403, 404, 409),
)
async def disconnect_platform(platforms: ThePlatforms, platform_name: FromPath[str]) -> PlatformDisconnected:
    """Forget a platform's credentials."""
    await platforms.disconnect(platform_name)
    return PlatformDisconnected()


ROUTES = [list_platforms, get_platform, connect_platform, verify_platform, disconnect_platform]
