"""
The Hugging Face Hub as a registry: a repository whose every commit is one version.

All files of a version come with one commit, which the Hub makes visible whole or not at all. What was sent before a
connection broke lies at the Hub already, under its hash, and is not sent again.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, set_client_factory
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from pydantic import ValidationError

from infra.registries.parcel import MANIFEST, Manifest, Parcel, Pushed
from peft_studio.errors import (
    CredentialRefused,
    InvalidConfig,
    NotFound,
    PermissionDenied,
    ResourceUnavailable,
    StudioError,
)
from peft_studio.registries import HuggingFaceRegistry

_SECONDS = 60.0  # of silence; by itself the library waits for ever


def push(registry: HuggingFaceRegistry, parcel: Parcel, values: dict[str, str], address: str) -> Pushed:
    """
    Put a version into the repository, which is created where there is none; nothing where it is the newest already.

    Sets the library's time-outs for the whole process. Raises a ``StudioError``.
    """
    set_client_factory(_client)
    try:
        return _push(registry, parcel, HfApi(endpoint=address, token=values["api_key"]), address)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _meaning(error, registry, address) from None


def _push(registry: HuggingFaceRegistry, parcel: Parcel, api: HfApi, address: str) -> Pushed:
    repository, manifest = registry.repository, parcel.manifest
    api.create_repo(repository, private=registry.private, exist_ok=True)
    found = api.model_info(repository)
    if registry.private and found.private is False:
        raise InvalidConfig(
            f"{repository} is public and the adapter was to be private: make it private, or set private: false.",
            field="repository",
        )
    before = _manifest(repository, found.sha, api)
    revision = found.sha
    if before is None or before.version != manifest.version:
        commit = api.create_commit(
            repository,
            _operations(parcel, before),
            commit_message=f"Version {manifest.version}",
            parent_commit=found.sha,
        )
        revision = commit.oid
    return Pushed(version=manifest.version, revision=str(revision), url=f"{address}/{repository}/tree/{revision}")


def _operations(parcel: Parcel, before: Manifest | None) -> list[CommitOperationAdd | CommitOperationDelete]:
    adds: list[CommitOperationAdd] = []
    for name, path in parcel.from_disk.items():
        add = CommitOperationAdd(name, path)
        # Known since the store took the file in: it is read once, to be sent. The Hub hashes what comes, too.
        add.upload_info.sha256 = bytes.fromhex(parcel.manifest.files[name].sha256)
        adds.append(add)
    adds += [CommitOperationAdd(name, text.encode()) for name, text in parcel.written.items()]
    gone = [name for name in (before.files if before else ()) if name not in parcel.manifest.files]
    return [*adds, CommitOperationAdd(MANIFEST, parcel.last), *(CommitOperationDelete(name) for name in gone)]


def _manifest(repository: str, revision: str | None, api: HfApi) -> Manifest | None:
    """Return what a revision says of itself; None where it is none of ours."""
    with TemporaryDirectory() as folder:
        try:
            file = hf_hub_download(
                repository, MANIFEST, revision=revision, local_dir=folder, endpoint=api.endpoint, token=api.token
            )
            return Manifest.model_validate_json(Path(file).read_bytes())
        except (EntryNotFoundError, ValidationError):
            return None


def _client() -> httpx2.Client:
    return httpx2.Client(follow_redirects=True, timeout=_SECONDS)


def _meaning(error: Exception, registry: HuggingFaceRegistry, address: str) -> StudioError:
    """Say what a failure of the library's stands for; what the Hub wrote is left out, it may repeat a token."""
    while not isinstance(error, HfHubHTTPError | httpx2.HTTPError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what a thread of an upload failed with
    repository = registry.repository
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401 and not isinstance(error, RepositoryNotFoundError):
            return CredentialRefused(f"{address} refused the token; connect huggingface again with a valid one.")
        if status == 401:
            return CredentialRefused(f"{address} shows {repository} to nobody with this token; is it valid?")
        if status == 403:
            return PermissionDenied(
                f"The connected token may not write to {repository}: take one of role write, and accept the "
                "repository's conditions where it has some."
            )
        if status == 404:
            return NotFound(f"{address} has no {repository}, and does not let the token create it.")
        if status == 412:
            return ResourceUnavailable(f"Somebody else changed {repository} meanwhile.")
        if status in (408, 429) or status >= 500:
            said = error.response.headers.get("Retry-After", "")
            wait = {"retry_after_seconds": int(said)} if said.isascii() and said.isdigit() else {}
            return ResourceUnavailable(f"{address} answered {status}.", **wait)
        return InvalidConfig(f"{address} does not take the adapter (it answered {status}).")
    if isinstance(error, ValueError):
        return InvalidConfig(f"{address} does not take the model card, or sent what is not understood.")
    return ResourceUnavailable(f"{address} cannot be reached ({type(error).__name__}).")
