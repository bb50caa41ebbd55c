"""
Modal: the calls of its private protocol that its library makes for the studio, and the web servers that are deployed.

In the library's own messages (``modal_proto``), by gRPC. Assumed, since nothing is written on them: the words of
refusals, and that an account that cannot pay is refused as one that is at its limit. A container is not really started:
what it would run is read from the function that was sent, and vLLM's arguments are taken as vLLM takes them.
"""

import asyncio
import hashlib
import inspect
import pickle
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from infra.simulators import grpc
from infra.simulators.entrance import Entrance
from infra.simulators.exchange import App, Asked, Reply, application
from infra.simulators.faults import FaultKind
from infra.simulators.hosting import Hosting, Refusals
from infra.simulators.vllm import VllmServer
from infra.simulators.vllm_serve import parser

TOKEN_ID = "ak-good-token-of-a-simulator"
_ROOT, _WEB = "/modal", "/web"
_BUILDER = "2025.06"
_RATES = {"T4": 0.59, "L4": 0.80, "A10G": 1.10, "L40S": 1.95, "A100-80GB": 2.50, "H100": 3.95, "H200": 4.54}
_NOT_INSTALLED = "ERROR: No matching distribution found for vllm"
_REFUSALS = Refusals(
    no_credit=grpc.failed(grpc.RESOURCE_EXHAUSTED, "Workspace billing cycle spend limit reached"),
    no_room=grpc.failed(grpc.RESOURCE_EXHAUSTED, "There is no room"),
    taken=grpc.failed(grpc.INVALID_ARGUMENT, "The name is taken"),
    broken=grpc.failed(grpc.DATA_LOSS, "Internal error"),
)


@dataclass
class _App:
    """One app, from its first call on; ``functions`` are by the names that they were published under."""

    id: str
    name: str
    state: int
    functions: dict[str, str] = field(default_factory=dict[str, str])


def create_modal(hosting: Hosting) -> App:
    """Make the application; calls come to ``/modal/METHOD`` and web servers answer below ``/modal/web``."""
    too_many = grpc.failed(grpc.RESOURCE_EXHAUSTED, "Rate limit exceeded")
    entrance, workspace = (
        Entrance("modal", hosting, too_many),
        _Workspace(hosting, import_module("modal_proto.api_pb2")),
    )

    async def reply(asked: Asked) -> Reply:
        path = asked.path.removeprefix(_ROOT)
        if path.startswith(f"{_WEB}/"):
            name, _, rest = path.removeprefix(f"{_WEB}/").partition("/")
            return await workspace.answer(name, replace(asked, path=f"/{rest}"))
        if (refused := entrance.reply(asked)) is not None:
            return refused
        if asked.headers.get("x-modal-token-id") != TOKEN_ID:
            return grpc.failed(grpc.UNAUTHENTICATED, "Token ID not found")
        return await workspace.act(path.strip("/"), asked)

    return application(reply)


class _Workspace:
    """What can be done in the one workspace; ``proto`` are the library's messages."""

    def __init__(self, hosting: Hosting, proto: Any):
        self._hosting = hosting
        self._proto = proto
        self._apps: dict[str, _App] = {}
        self._images: dict[str, bool] = {}  # whether each has been built
        self._secrets: dict[str, Mapping[str, str]] = {}
        self._functions: dict[str, Any] = {}

    async def act(self, method: str, asked: Asked) -> Reply:
        """Do what a call says; one that the studio's use of the library does not make is not known here."""
        if method != "AppPublish" and method not in _CALLS:
            return grpc.failed(grpc.UNIMPLEMENTED, f"{method} is not simulated")
        request = self._message(f"{method}Request")
        request.ParseFromString(grpc.message_of(asked.content))
        if method == "AppPublish":
            return await self._hosting.creating(lambda: self._publish(request), _REFUSALS, bills=True)
        if method in ("FunctionCreate", "FunctionGet"):
            return _CALLS[method](self, request, f"{asked.origin}{_ROOT}{_WEB}")
        return _CALLS[method](self, request)

    async def answer(self, name: str, asked: Asked) -> Reply:
        """Answer as an app's web server does; who asks while its container starts is kept waiting."""
        found = self._hosting.deployed(name)
        if found is None:
            return Reply(b"modal-http: invalid function call", 404, {"Content-Type": "text/plain"})
        await asyncio.sleep(max(0.0, found.ready_from - time.time()))
        server: VllmServer = found.details["server"]
        return server.reply(asked)

    def environment(self, request: Any) -> Reply:
        """Tell of the environment what an image is built for."""
        settings = self._message("EnvironmentSettings", image_builder_version=_BUILDER)
        metadata = self._message("EnvironmentMetadata", name="main", settings=settings)
        return self._answered("EnvironmentGetOrCreateResponse", environment_id="en-1", metadata=metadata)

    def app_by_name(self, request: Any) -> Reply:
        """Find an app that is deployed; nothing is what is said where there is none."""
        found = self._deployed(request.name)
        return self._answered("AppGetByDeploymentNameResponse", app_id=found.id if found else "")

    def app(self, request: Any) -> Reply:
        """Find an app that is deployed, for whoever needs one."""
        if (found := self._deployed(request.app_name)) is None:
            return grpc.failed(grpc.NOT_FOUND, f"App '{request.app_name}' not found in environment 'main'")
        return self._answered("AppGetOrCreateResponse", app_id=found.id)

    def app_created(self, request: Any) -> Reply:
        """Begin an app, which is nobody's business until it is published."""
        made = _App(f"ap-{len(self._apps) + 1}", request.description, request.app_state)
        self._apps[made.id] = made
        return self._answered("AppCreateResponse", app_id=made.id, app_page_url=f"https://modal.com/id/{made.id}")

    def app_layout(self, request: Any) -> Reply:
        """Show the functions of an app, which is deployed anew."""
        layout = self._message("AppLayout", function_ids=self._apps[request.app_id].functions)
        return self._answered("AppGetLayoutResponse", app_layout=layout)

    def app_heard(self, request: Any) -> Reply:
        """Hear that somebody still deploys an app."""
        return grpc.answered(b"")

    def app_left(self, request: Any) -> Reply:
        """Stop an app that came to nothing; one that is deployed stays."""
        if self._apps[request.app_id].state == self._proto.APP_STATE_INITIALIZING:
            self._apps[request.app_id].state = self._proto.APP_STATE_STOPPED
        return grpc.answered(b"")

    def app_stopped(self, request: Any) -> Reply:
        """Stop an app, with its containers."""
        stopped = self._apps[request.app_id]
        stopped.state = self._proto.APP_STATE_STOPPED
        if deployed := self._hosting.deployed(stopped.name):
            self._hosting.remove(deployed)
        return grpc.answered(b"")

    def apps(self, request: Any) -> Reply:
        """List all apps, those that are stopped, too."""
        shown = {one.name for one in self._hosting.listed_deployments()}
        deployed = self._proto.APP_STATE_DEPLOYED
        listed = [one for one in self._apps.values() if one.state != deployed or one.name in shown]
        item = self._proto.AppListResponse.AppListItem
        items = [item(app_id=one.id, description=one.name, name=one.name, state=one.state) for one in listed]
        return self._answered("AppListResponse", apps=items)

    def image(self, request: Any) -> Reply:
        """Begin to build an image, or tell of one that is built."""
        made = f"im-{hashlib.sha256(request.image.SerializeToString(deterministic=True)).hexdigest()[:22]}"
        if any(base.image_id not in self._images for base in request.image.base_images):
            return grpc.failed(grpc.NOT_FOUND, "Image not found")
        built = self._images.setdefault(made, False)
        return self._answered("ImageGetOrCreateResponse", image_id=made, **(self._built() if built else {}))

    def image_joined(self, request: Any) -> Reply:
        """Show how an image is built, to its end."""
        log = self._message("TaskLogs", data="Building image\n")
        first = self._message("ImageJoinStreamingResponse", task_logs=[log], entry_id="1")
        told = self._built()
        if self._hosting.faults.take(FaultKind.FAILS_LOADING):
            failure = self._proto.GenericResult.GENERIC_STATUS_FAILURE
            told = {"result": self._message("GenericResult", status=failure, exception=_NOT_INSTALLED)}
        self._images[request.image_id] = "metadata" in told
        last = self._message("ImageJoinStreamingResponse", eof=True, **told)
        return grpc.answered(first.SerializeToString(), last.SerializeToString())

    def mount(self, request: Any) -> Reply:
        """Find the vendor's own files, which every container has; the studio sends none of its own."""
        if request.namespace != self._proto.DEPLOYMENT_NAMESPACE_GLOBAL:
            return grpc.failed(grpc.NOT_FOUND, f"Mount '{request.deployment_name}' not found")
        return self._answered("MountGetOrCreateResponse", mount_id="mo-1")

    def secret(self, request: Any) -> Reply:
        """Keep what a container is to find in its environment; nobody is shown it again."""
        made = f"st-{len(self._secrets) + 1}"
        self._secrets[made] = dict(request.env_dict)
        return self._answered("SecretGetOrCreateResponse", secret_id=made)

    def function_begun(self, request: Any) -> Reply:
        """Give a function its id."""
        made = request.existing_function_id or f"fu-{len(self._functions) + 1}"
        self._functions.setdefault(made, None)
        metadata = self._message("FunctionHandleMetadata", function_name=request.function_name)
        return self._answered("FunctionPrecreateResponse", function_id=made, handle_metadata=metadata)

    def function(self, request: Any, web: str) -> Reply:
        """Take a function, with all that it needs."""
        function = request.function
        gpu = function.resources.gpu_config.gpu_type
        if gpu not in _RATES:
            return grpc.failed(grpc.INVALID_ARGUMENT, f"Unknown GPU type: {gpu}")
        if not self._images.get(function.image_id) or any(one not in self._secrets for one in function.secret_ids):
            return grpc.failed(grpc.NOT_FOUND, "Image or secret not found")
        self._functions[request.existing_function_id] = function
        metadata = self._metadata(function, self._apps[request.app_id].name, web)
        told = {"function_id": request.existing_function_id, "function": function, "handle_metadata": metadata}
        return self._answered("FunctionCreateResponse", **told, function_data=self._shown(function))

    def function_found(self, request: Any, web: str) -> Reply:
        """Find a function of an app that is deployed."""
        found = self._deployed(request.app_name)
        made = found.functions.get(request.object_tag) if found else None
        if made is None:
            return grpc.failed(grpc.NOT_FOUND, f"Function '{request.object_tag}' not found in app")
        metadata = self._metadata(self._functions[made], request.app_name, web)
        shown = self._shown(self._functions[made])
        return self._answered("FunctionGetResponse", function_id=made, handle_metadata=metadata, function=shown)

    def _publish(self, request: Any) -> Reply:
        published = self._apps[request.app_id]
        published.functions, published.state = dict(request.function_ids), request.app_state
        [function] = (self._functions[one] for one in published.functions.values())
        environment = {name: value for one in function.secret_ids for name, value in self._secrets[one].items()}
        details = {"function": function, "environment": environment, "server": _server(function, environment)}
        if (running := self._hosting.deployed(request.name)) is not None:
            running.details.update(details)
        else:
            gpu, least = function.resources.gpu_config, function.autoscaler_settings.min_containers
            self._hosting.deploy(request.name, _RATES[gpu.gpu_type] * gpu.count, max(1, least), **details)
        return self._answered("AppPublishResponse", url=f"https://modal.com/id/{published.id}", deployed_at=time.time())

    def _deployed(self, name: str) -> _App | None:
        state = self._proto.APP_STATE_DEPLOYED
        return next((one for one in self._apps.values() if (one.name, one.state) == (name, state)), None)

    def _metadata(self, function: Any, app: str, web: str) -> Any:
        serves = function.webhook_config.type == self._proto.WEBHOOK_TYPE_WEB_SERVER
        url = f"{web}/{app}" if serves else ""
        return self._message("FunctionHandleMetadata", function_name=function.function_name, web_url=url)

    def _shown(self, function: Any) -> Any:
        """Return a function as it is shown: in the form that leaves a choice of machines, with one."""
        one = self._proto.FunctionData.RankedFunction(rank=0, function=function)
        return self._message("FunctionData", function_name=function.function_name, ranked_functions=[one])

    def _built(self) -> Mapping[str, Any]:
        done = self._message("GenericResult", status=self._proto.GenericResult.GENERIC_STATUS_SUCCESS)
        return {"result": done, "metadata": self._message("ImageMetadata", image_builder_version=_BUILDER)}

    def _message(self, name: str, /, **values: Any) -> Any:
        return getattr(self._proto, name)(**values)

    def _answered(self, name: str, /, **values: Any) -> Reply:
        return grpc.answered(self._message(name, **values).SerializeToString())


_CALLS: Mapping[str, Callable[..., Reply]] = {
    "AppClientDisconnect": _Workspace.app_left,
    "AppCreate": _Workspace.app_created,
    "AppGetByDeploymentName": _Workspace.app_by_name,
    "AppGetLayout": _Workspace.app_layout,
    "AppGetOrCreate": _Workspace.app,
    "AppHeartbeat": _Workspace.app_heard,
    "AppList": _Workspace.apps,
    "AppStop": _Workspace.app_stopped,
    "EnvironmentGetOrCreate": _Workspace.environment,
    "FunctionCreate": _Workspace.function,
    "FunctionGet": _Workspace.function_found,
    "FunctionPrecreate": _Workspace.function_begun,
    "ImageGetOrCreate": _Workspace.image,
    "ImageJoinStreaming": _Workspace.image_joined,
    "MountGetOrCreate": _Workspace.mount,
    "SecretGetOrCreate": _Workspace.secret,
}


def _server(function: Any, environment: Mapping[str, str]) -> VllmServer:
    """Return the server that a function starts: the program is in its closure, as the library has packed it."""
    nonlocals = inspect.getclosurevars(pickle.loads(function.function_serialized)).nonlocals
    words = shlex.split(nonlocals["command"][-1])
    cut = words.index("&&")
    fetch, serve = words[:cut], words[cut + 2 :]  # … && exec vllm …
    given = parser().parse_args(serve[1:])
    fetched = dict(zip(fetch[3::2], fetch[4::2], strict=True))
    loaded = dict(one.split("=", 1) for one in given.lora_modules)
    voices = {name: f"{fetch[2]}@{fetched.get('--revision')}" for name in loaded}
    return VllmServer(
        base=given.served_model_name,
        key=environment["VLLM_API_KEY"],
        runtime_updating=False,
        max_lora_rank=given.max_lora_rank,
        adapters={name: path for name, path in loaded.items() if path == fetched["--local-dir"]},
        voices=voices,
    )
