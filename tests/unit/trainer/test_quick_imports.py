"""What a job makes no use of is not loaded, and what it asks for after all is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_studio.trainer.late import Manners, run_late
from tests.tiny import make_run
from tests.unit.exporter.trained import LLAMA3

TRAIN = """
import sys
from peft_studio.trainer.__main__ import work
from peft_studio.run_dir import RunDir
from peft_studio.trainer.stop import StopSignal

code = work(RunDir(sys.argv[1]), None, StopSignal())
unneeded = ("bitsandbytes", "torchao", "boto3", "sympy", "torch.distributed.fsdp", "torch._dynamo.eval_frame")
print([name for name in unneeded if sys.modules.get(name)])

import json
import torch
from peft_studio.trainer.layers import skeleton
from transformers import LlamaConfig

# PyTorch knows a shape that these take in Python alone.
print(skeleton(LlamaConfig(num_hidden_layers=1, rope_parameters=json.loads(sys.argv[2]))).device)

import torch.export.exported_program as exported

doubled = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).tolist()
print(doubled, exported.ExportedProgram is torch.export.ExportedProgram, "torch._dynamo.eval_frame" in sys.modules)
sys.exit(code)
"""
LOOK = """
import gc, sys
from peft_studio.run_dir import RunDir
from peft_studio.trainer.quick_imports import quick_imports

before = list(sys.meta_path)
with quick_imports(RunDir(sys.argv[1])):
    print(sys.meta_path == before, gc.isenabled(), "boto3" in sys.modules)
print(gc.isenabled())
"""


def run_python(script: str, *arguments: str | Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(120)
def test_a_cold_trainer_loads_what_it_does_not_need_when_it_is_asked_for(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, model, rows, max_steps=1)
    assert run_python(TRAIN, run.path, json.dumps(LLAMA3)) == ["[]", "meta", "[2.0, 2.0] True True"]
    assert run.read_summary() is not None


def test_imports_stay_as_they_are_where_that_is_wished_for(model: Path, rows: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, model, rows)
    assert run_python(LOOK, run.path, PEFT_STUDIO_STOCK_IMPORTS="1") == ["True True False", "True"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package that notes in LOG that it runs, whose modules expect that it does before them."""
    name = f"late_package_{request.node.name.encode().hex()[-16:]}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(f"LOG = ['package']\nfrom {name} import first\ndef mark(x): return [x]\n")
    for module in ("first", "second"):
        (folder / f"{module}.py").write_text(f"from {name} import LOG\nLOG.append('{module}')\n")
    (folder / "free.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    run_late({name: Manners({"mark": lambda x: x}, alone=frozenset({"free"}))})
    return name


def loaded(package: str) -> dict[str, object]:
    return vars(sys.modules[package])


def test_a_late_package_answers_and_gives_modules_without_running(package: str) -> None:
    free = __import__(f"{package}.free", fromlist=["answer"])
    there = sys.modules[package]
    assert free.answer == 42
    assert there.free is free
    assert there.mark("as it is") == "as it is"
    assert "LOG" not in loaded(package)


def test_a_late_package_runs_when_it_is_asked_for_anything_else(package: str) -> None:
    there = __import__(package)
    assert there.LOG == ["package", "first"]
    assert there.mark(1) == [1]
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        there.nothing_of_that_name  # noqa: B018


@pytest.mark.parametrize("module", ["first", "second"])
def test_a_late_package_runs_before_its_modules_and_they_run_once(package: str, module: str) -> None:
    found = __import__(f"{package}.{module}", fromlist=["LOG"])
    assert list(dict.fromkeys(["package", "first", module])) == found.LOG
    assert sys.modules[f"{package}.{module}"] is found
    assert found.__spec__.loader.name == f"{package}.{module}"
