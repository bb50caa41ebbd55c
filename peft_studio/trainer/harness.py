"""The seam to lm-evaluation-harness: tasks of its on a model that is loaded, and two models compared by them."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from peft_studio.errors import InvalidConfig
from peft_studio.evaluation.bootstrap import compare
from peft_studio.evaluation.comparison import Bootstrap, Measure, ModelComparison
from peft_studio.evaluations import Harness

Scores = dict[str, dict[int, float]]  # by task and metric: what each document, by its number, is worth
_PERPLEXITY = "perplexity"
_LESS_IS_BETTER = ("bits_per_byte", "loss", "ter")


def require_harness() -> None:
    """Raise ``InvalidConfig`` where lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise InvalidConfig(
            "lm_eval: lm-evaluation-harness is not installed where the studio runs.",
            field="lm_eval",
            issue="Install it there with: pip install 'peft-studio[lm-eval]'; or leave lm_eval out.",
        )


def run_tasks(model: Any, tokenizer: Any, wanted: Harness, batch_size: int, more: Path | None = None) -> Scores:
    """
    Run the tasks on a model that is loaded, and return its scores document by document.

    ``more`` is a folder of tasks besides those that the harness has itself.
    """
    require_harness()
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    manager = _tasks(more)
    unknown = [name for name in wanted.tasks if name not in manager.all_tasks]
    if unknown:
        raise InvalidConfig(
            f"lm_eval.tasks: lm-evaluation-harness knows no task {unknown[0]!r}.",
            field="lm_eval.tasks",
            issue="`lm-eval ls tasks` lists them.",
        )
    loaded: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    # Its own standard errors are not used: nothing to bootstrap.
    found: Any = simple_evaluate(
        loaded, tasks=[*wanted.tasks], limit=wanted.limit, task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    return scores_of(cast(Mapping[str, list[dict[str, Any]]], found["samples"]))


@cache
def _tasks(more: Path | None) -> Any:
    """Return what the harness knows; it reads thousands of files to know it."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    return TaskManager(include_path=str(more) if more else None)


def scores_of(samples: Mapping[str, list[dict[str, Any]]]) -> Scores:
    """Return what each document of each task is worth by each metric that is a number there."""
    found: Scores = {}
    for task, documents in samples.items():
        for document in documents:
            for metric in document.get("metrics", ()):
                if not isinstance(value := document.get(metric), bool | int | float):
                    continue
                # Of a document it says under this name how likely the text is; e to the mean of it is the perplexity.
                worth = -float(value) if metric == _PERPLEXITY else float(value)
                found.setdefault(_name(task, metric, document), {})[document["doc_id"]] = worth
    return found


def _name(task: str, metric: str, document: Mapping[str, Any]) -> str:
    """Name a score; some tasks read the same answer in several ways, each a filter."""
    which = document.get("filter", "none")
    return f"{task}/{metric}" if which == "none" else f"{task}/{which}/{metric}"


def compare_scores(base: Scores, adapter: Scores, bootstrap: Bootstrap) -> dict[str, ModelComparison]:
    """Compare two models on the documents that both were asked, as means over documents."""
    found: dict[str, ModelComparison] = {}
    for name in base.keys() & adapter.keys():
        both = sorted(base[name].keys() & adapter[name].keys())
        before, after = (np.array([scores[name][document] for document in both]) for scores in (base, adapter))
        metric = name.rpartition("/")[2]
        kind = Measure.LOSS if metric in _LESS_IS_BETTER else Measure.ACCURACY
        if one := compare(Measure.PERPLEXITY if metric == _PERPLEXITY else kind, before, after, bootstrap):
            found[name] = one
    return dict(sorted(found.items()))
