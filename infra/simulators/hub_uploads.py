"""
A hub that takes uploads, as huggingface_hub sends them: repositories, LFS objects, and commits that are whole or not.

Source: what huggingface_hub 2.4 sends, and hub-docs; Xet, which only the real Hub speaks, is not simulated.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from time import sleep
from typing import Any

from infra.simulators.accounts import DOORS, GOOD
from infra.simulators.exchange import App, Asked, Reply, application

READ_ONLY = "hf_read_only_key_of_a_simulator"
_LFS_BYTES = 10 << 20


@dataclass(frozen=True)
class Commit:
    """A version of a repository; ``files`` are all it has."""

    oid: str
    files: Mapping[str, bytes]


@dataclass
class Repository:
    """A repository, its commits the oldest first."""

    private: bool = True
    gated: bool = False
    commits: list[Commit] = field(default_factory=lambda: [Commit(_oid("begin"), {})])

    @property
    def head(self) -> Commit:
        """The newest commit."""
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        """Return the commit of a revision."""
        if revision in ("", "main"):
            return self.head
        return next((one for one in self.commits if one.oid == revision), None)


@dataclass
class UploadTrouble:
    """What goes wrong with requests whose path has ``at`` in it: another answer, or none for a while."""

    at: str
    reply: Reply | None = None
    times: int = 1
    silent_seconds: float = 0.0


@dataclass
class UploadHub:
    """The hub; tests look at what it has, at what was asked of it, and make its troubles."""

    owner: str = "me"
    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    troubles: list[UploadTrouble] = field(default_factory=list[UploadTrouble])
    asked: list[str] = field(default_factory=list[str])
    received: list[str] = field(default_factory=list[str])  # hashes of LFS objects, in the order in which they came
    _lock: Lock = field(default_factory=Lock)

    def reply(self, asked: Asked) -> Reply:
        """Answer as the Hub does."""
        with self._lock:
            self.asked.append(f"{asked.method} {asked.path}")
            trouble = next((one for one in self.troubles if one.times and one.at in asked.path), None)
            if trouble:
                trouble.times -= 1
        if trouble:
            sleep(trouble.silent_seconds)
            if trouble.reply:
                return trouble.reply
        return self._answer(asked)

    def _answer(self, asked: Asked) -> Reply:
        path = asked.path.strip("/")
        if asked.path == DOORS["huggingface"].path:
            return DOORS["huggingface"].reply(asked.headers)
        if path.startswith("_lfs/"):  # signed addresses, which take no token
            return self._receive(path.rpartition("/")[2], asked.content)
        if asked.token not in (GOOD, READ_ONLY):
            return _error(401, "Invalid username or password.")
        if path == "api/validate-yaml":
            return _validated(json.loads(asked.content)["content"])
        if path == "api/repos/create":
            return self._create(asked)
        if path == "_verify":
            wanted = json.loads(asked.content)
            there = self.objects.get(wanted["oid"])
            return Reply({}) if there is not None and len(there) == wanted["size"] else _error(404, "No such object")
        return self._of_repository(asked, path)

    def _of_repository(self, asked: Asked, path: str) -> Reply:
        if path.endswith(".git/info/lfs/objects/batch"):
            name, what, rest = path.removesuffix(".git/info/lfs/objects/batch"), "batch", ""
        elif path.startswith("api/models/"):
            owner, short, what, rest = [*path.removeprefix("api/models/").split("/", 3), "", ""][:4]
            name = f"{owner}/{short}"
        else:
            owner, short, what, rest = [*path.split("/", 3), "", ""][:4]
            name = f"{owner}/{short}"
        repository = self.repositories.get(name)
        if repository is None:
            return _error(404, "Repository not found", "RepoNotFound")
        match asked.method, what:
            case "GET", "" | "revision":
                return _info(name, repository, repository.at(rest))
            case "GET" | "HEAD", "resolve":
                revision, _, inside = rest.partition("/")
                return _file(repository.at(revision), inside)
            case "POST", "preupload" | "batch" | "commit" if asked.token == READ_ONLY:
                return _error(403, "You have read access but not the required permissions for this operation")
            case "POST", "preupload":
                return _modes(json.loads(asked.content)["files"], repository.head)
            case "POST", "batch":
                return self._batch(asked)
            case "POST", "commit":
                return self._commit(asked, name, repository)
            case _:
                return _error(404, "Not found")

    def _create(self, asked: Asked) -> Reply:
        wanted = json.loads(asked.content)
        name = f"{wanted.get('organization') or self.owner}/{wanted['name']}"
        if asked.token == READ_ONLY or not name.startswith(f"{self.owner}/"):
            return _error(403, "You don't have the rights to create a model under this namespace")
        address = f"{asked.origin}/{name}"
        if name in self.repositories:
            return Reply({"error": "You already created this model repo", "url": address}, 409)
        private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.repositories[name] = Repository(private=private)
        return Reply({"url": address, "name": name, "id": "1"})

    def _batch(self, asked: Asked) -> Reply:
        objects: list[dict[str, Any]] = []
        for one in json.loads(asked.content)["objects"]:
            upload = {"href": f"{asked.origin}/_lfs/{one['oid']}", "header": {}}
            verify = {"href": f"{asked.origin}/_verify", "header": {}}
            actions = {} if one["oid"] in self.objects else {"actions": {"upload": upload, "verify": verify}}
            objects.append({**one, "authenticated": True, **actions})
        return Reply(
            {"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"}
        )

    def _receive(self, oid: str, content: bytes) -> Reply:
        if hashlib.sha256(content).hexdigest() != oid:
            return _error(400, "The content is not what its name says")
        self.received.append(oid)
        self.objects[oid] = content
        return Reply({})

    def _commit(self, asked: Asked, name: str, repository: Repository) -> Reply:
        lines = [json.loads(line) for line in asked.content.splitlines() if line.strip()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, repository.head.oid):
            return _error(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.head.files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] not in self.objects:
                    return _error(400, "LFS pointer pointed to a file that does not exist")
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    files.pop(value["path"], None)
                case _:
                    return _error(400, "Unknown key")
        oid = _oid(f"{len(repository.commits)} {name} {hashlib.sha256(asked.content).hexdigest()}")
        repository.commits.append(Commit(oid, files))
        url = f"{asked.origin}/{name}/commit/{oid}"
        return Reply({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def create_upload_hub(hub: UploadHub) -> App:
    """Make a hub that takes uploads."""

    async def answer(asked: Asked) -> Reply:
        return await asyncio.to_thread(hub.reply, asked)

    return application(answer)


def _oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _error(status: int, message: str, code: str = "") -> Reply:
    return Reply({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message} if code else {})


def _validated(card: str) -> Reply:
    has_front = card.startswith("---\n")
    wrong = [] if has_front else [{"message": "empty or missing yaml metadata in repo card"}]
    return Reply({"errors": [], "warnings": wrong})


def _info(name: str, repository: Repository, commit: Commit | None) -> Reply:
    if commit is None:
        return _error(404, "Invalid rev id", "RevisionNotFound")
    return Reply(
        {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit.oid,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "tags": [],
            "siblings": [{"rfilename": file} for file in sorted(commit.files)],
        }
    )


def _file(commit: Commit | None, inside: str) -> Reply:
    if commit is None:
        return _error(404, "Invalid rev id", "RevisionNotFound")
    if inside not in commit.files:
        return _error(404, "Entry not found", "EntryNotFound")
    content = commit.files[inside]
    tag = hashlib.sha256(content).hexdigest()
    return Reply(content, headers={"X-Repo-Commit": commit.oid, "ETag": f'"{tag}"', "Content-Type": "text/plain"})


def _modes(files: list[dict[str, Any]], head: Commit) -> Reply:
    modes = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(".safetensors") or file["size"] > _LFS_BYTES else "regular",
            "shouldIgnore": False,
            "oid": _blob_id(head.files.get(file["path"])),
        }
        for file in files
    ]
    return Reply({"files": modes})


def _blob_id(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
