"""The JavaScript client: its own tests, and that it lacks no route and no type."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.clients.test_every_route import BY_OTHER_MEANS, documented, matches, requests
from tests.node import CLIENT, NODE, NODES, flags

__all__ = ["documented"]  # a fixture


# Calls every method with something for its parameters, and tells the first request of each.
LIST = """
import { Client } from "./src/index.js";
const sent = {};
let name;
const fetch = async (address, { method = "GET" }) => {
  sent[name] ??= [method, decodeURIComponent(new URL(address).pathname).replace("/api/v1", "")];
  throw new Error("not sent");
};
const client = new Client({ url: "http://x", apiKey: "k", repeats: 0, fetch });
for (name of Object.getOwnPropertyNames(Client.prototype)) {
  if (name === "constructor") continue;
  const file = new Blob(["x"]);
  const called = client[name](/^upload/.test(name) ? file : "x", name === "follow" ? { transport: "sse" } : "x");
  if (name === "follow") await Promise.race([called.next(), new Promise((go) => setTimeout(go, 50))]).catch(() => {});
  else await called.catch(() => {});
}
console.log(JSON.stringify(sent));
process.exit(0);
"""


def node(*words: str, program: str = NODE) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run([program, *words], cwd=CLIENT, capture_output=True, text=True, env=environment, timeout=110)


@pytest.mark.parametrize("program", NODES)
def test_its_own_tests_pass(program: str) -> None:
    done = node("--test", *flags(program), "test/client.test.js", program=program)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_it_has_a_method_for_every_route_and_a_route_for_every_method(
    documented: set[tuple[str, str]], tmp_path: Path
) -> None:
    done = node("--input-type=module", "-e", LIST)
    sent: dict[str, tuple[str, str]] = {name: tuple(call) for name, call in json.loads(done.stdout).items()}
    (tmp_path / "rows.jsonl").touch()
    of_python = {(call.method, call.path) for call in requests(tmp_path / "rows.jsonl").values()}
    assert {call for name, call in sent.items() if name != "follow"} == of_python
    assert sent["follow"] == ("GET", "/jobs/x/events")
    calls = [call for call in requests(tmp_path / "rows.jsonl").values() if (call.method, call.path) in sent.values()]
    missing = [route for route in documented if not any(matches(call, route) for call in calls)]
    assert [route for route in missing if not BY_OTHER_MEANS.fullmatch(" ".join(route))] == []


def test_every_method_and_every_error_has_a_type() -> None:
    types = (CLIENT / "src" / "index.d.ts").read_text()
    methods = re.findall(r"^  (?:async )?(\w+)\(.*\) \{$", (CLIENT / "src" / "client.js").read_text(), re.MULTILINE)
    errors = re.findall(r"^export class (\w+)", (CLIENT / "src" / "errors.js").read_text(), re.MULTILINE)
    assert [name for name in methods if not re.search(rf"^  {name}\(", types, re.MULTILINE)] == []
    assert [name for name in errors if not re.search(rf"^export class {name} ", types, re.MULTILINE)] == []
