"""The tree is as the documents say, and no module outgrows a sitting."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_MODULE, LONGEST_FUNCTION = 300, 50
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
MODULES = [ROOT / name for name in TRACKED if name.endswith(".py") and not name.startswith("tests/")]


def test_no_module_is_too_long() -> None:
    assert [str(path) for path in MODULES if path.read_text().count("\n") > LONGEST_MODULE] == []


def test_no_function_is_too_long() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno > LONGEST_FUNCTION
    ]
    assert long == []


def test_no_two_test_modules_share_a_name() -> None:
    names = Counter(Path(name).name for name in TRACKED if Path(name).name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []  # pytest would refuse to collect them


def test_every_file_in_the_readmes_tree_exists() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    names = re.findall(r"[\w.]+(?:/|\.(?:py|toml|txt|yaml)\b)|^Makefile", tree, re.MULTILINE)
    parts = {part for name in TRACKED for part in (Path(name).name, *(f"{p.name}/" for p in Path(name).parents))}
    assert [name for name in names if name not in parts] == []


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / name for name in TRACKED if name.endswith(".md") and not name.startswith("demo/model")]
    broken = [
        f"{document.name}: {link}"
        for document in documents
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text())
        if not (document.parent / link).exists()
    ]
    assert broken == []
