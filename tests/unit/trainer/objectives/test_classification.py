"""Labels of texts and of words: the loss is transformers' own, and each word is asked at its own token."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, AutoPeftModelForTokenClassification
from transformers import AutoTokenizer

from peft_studio.config import TrainingConfig
from peft_studio.datasets import examples, split_rows
from peft_studio.errors import InvalidConfig
from peft_studio.objectives import Objective
from peft_studio.row_layouts import in_order
from peft_studio.trainer.data import epoch_order
from peft_studio.trainer.model import read_base
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.outcome import FAILED
from peft_studio.trainer.program import run as train
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from tests.tiny import labelled, make_run, tagged, tiny_encoder, tiny_model, write_rows
from tests.unit.trainer.objectives.jobs import evaluated, job, reported, trained

PLAIN: dict[str, Any] = {"dropout": 0, "batch_size": 4, "gradient_accumulation_steps": 1, "num_epochs": 1}
CLASSES: dict[str, Any] = {
    "sequence_classification": AutoPeftModelForSequenceClassification,
    "token_classification": AutoPeftModelForTokenClassification,
}


def in_first_order(raw: list[Any]) -> list[Any]:
    kept, _ = split_rows(len(raw), 0.0, 0)
    return [raw[kept[i]] for i in epoch_order(len(kept), 0, 0)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_the_loss_of_texts_is_that_of_transformers(tmp_path: Path, model: Path) -> None:
    """The adapter after no step but one of rate 0: the losses of all batches are those of the model as it is stored."""
    raw = labelled(12)
    rows = write_rows(tmp_path / "rows.jsonl", raw)
    job = PLAIN | {"learning_rate": 1e-6, "warmup_steps": 1_000_000}
    run = trained(make_run(tmp_path / "run", model, rows, objective="sequence_classification", **job))
    stock = AutoPeftModelForSequenceClassification.from_pretrained(run.adapter, num_labels=3).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    labels: list[str] = json.loads((run.adapter / "labels.json").read_text())
    assert labels == ["cat", "dog", "house"]
    steps = [in_first_order(raw)[i : i + 4] for i in (0, 4, 8)]
    for told, some in zip(reported(run), steps, strict=True):
        with torch.no_grad():
            losses = [
                stock(
                    **tokenizer(row["text"], return_tensors="pt", return_token_type_ids=False),
                    labels=torch.tensor([labels.index(row["label"])]),
                ).loss.item()
                for row in some
            ]
        assert told["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_the_loss_of_words_is_that_of_transformers(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", classifier_dropout=0.0)
    raw = tagged(12)
    job = PLAIN | {"learning_rate": 1e-6, "warmup_steps": 1_000_000, "batch_size": 12}
    rows = write_rows(tmp_path / "rows.jsonl", raw)
    run = trained(make_run(tmp_path / "run", model, rows, objective="token_classification", **job))
    stock = AutoPeftModelForTokenClassification.from_pretrained(run.adapter, num_labels=3).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    total, words = 0.0, 0
    for row in raw:
        ids: list[int] = []
        labels: list[int] = []
        for place, (word, tag) in enumerate(zip(row["tokens"], row["ner_tags"], strict=True)):
            pieces = tokenizer((" " if place else "") + word)["input_ids"]
            own = next(i for i, piece in enumerate(pieces) if tokenizer.decode(piece).strip())  # the space may be one
            ids += pieces
            labels += [tag if i == own else -100 for i in range(len(pieces))]
        with torch.no_grad():
            loss = stock(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        total, words = total + loss * len(row["tokens"]), words + len(row["tokens"])
    assert reported(run)[0]["loss"] == pytest.approx(total / words, rel=1e-5)


@pytest.mark.parametrize("objective", list(CLASSES))
def test_a_prompt_is_answered_with_labels(objective: str, tmp_path: Path, model: Path) -> None:
    prompt = "the red cat sees my dog"
    run = trained(job(tmp_path, model, objective, num_epochs=8, test_prompt=prompt))
    answer = evaluated(run).answer
    assert answer is not None
    assert answer.prompt == prompt
    assert answer.adapter == ("dog" if objective == "sequence_classification" else "0 1 2 0 0 2")


def test_words_are_found_whatever_the_tokenizer_makes_of_them(tmp_path: Path, model: Path) -> None:
    words = ["who", "zzz", "\u00e9\u00e9", "is", "my", "cat"]
    rows = write_rows(tmp_path / "rows.jsonl", [{"tokens": words, "tags": list("OABOOC")}])
    config = TrainingConfig(base_model=str(model), dataset_path=str(rows), objective=Objective.TOKEN_CLASSIFICATION)
    base = read_base(config, None)
    criterion = criterion_of(config, base)
    [example] = examples(str(rows), objective=config.objective)
    criterion.study([example])
    assert criterion.labels == ["A", "B", "C", "O"]
    [item] = criterion.encode([example], Renderer(base.tokenizer, example.layout), 128).rows
    [text] = item.texts
    first = [base.tokenizer.decode(text.ids[place:]) for place in text.learn.nonzero()[0]]
    assert [rest.split()[0] for rest in first] == words
    assert item.targets.tolist() == [3, 0, 1, 3, 3, 2]
    short = criterion.encode([example], Renderer(base.tokenizer, example.layout), int(text.learn.nonzero()[0][2]) + 1)
    assert short.truncated == 1
    assert short.rows[0].targets.tolist() == [3, 0, 1]


def test_labels_are_numbered_by_size_or_alphabet() -> None:
    assert in_order([10, 9, 10, 2]) == [2, 9, 10]
    assert in_order(["b", "a", "B"]) == ["B", "a", "b"]
    for labels, said in (([1, 1], "the same label"), ([1, "a"], "one kind"), (range(1001), "more than 1000")):
        with pytest.raises(InvalidConfig, match=said):
            in_order(labels)


def test_one_label_for_all_is_refused(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "the cat", "label": 1}] * 3)
    run = make_run(tmp_path / "run", model, rows, objective="sequence_classification")
    assert train(run, StopSignal()) == FAILED
    failure = run.read_failure()
    assert failure is not None and "the same label" in failure.error


@pytest.mark.parametrize("objective", list(CLASSES))
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # stock PEFT's
def test_encoders_are_trained_too(objective: str, tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    run = trained(job(tmp_path, model, objective, num_epochs=4, max_length=12))
    evaluation = evaluated(run)
    assert evaluation.base and evaluation.adapter
    assert evaluation.adapter.loss < evaluation.base.loss
    rows = tagged(1) if objective == "token_classification" else labelled(1)
    text = rows[0].get("text") or " ".join(rows[0]["tokens"])
    stock = CLASSES[objective].from_pretrained(run.adapter, num_labels=3).eval()
    tokens = AutoTokenizer.from_pretrained(model)(text, return_tensors="pt", return_token_type_ids=False)
    assert tokens["input_ids"][0, 0] == 0 and tokens["input_ids"][0, -1] == 1
    assert stock(**tokens).logits.shape[-1] == 3


def test_what_closes_a_text_stays_where_it_is_cut(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "the cat " * 9, "label": "a"}, {"text": "dog", "label": "b"}])
    config = TrainingConfig(base_model=str(model), dataset_path=str(rows), objective=Objective.SEQUENCE_CLASSIFICATION)
    base = read_base(config, None)
    criterion, some = criterion_of(config, base), list(examples(str(rows), objective=config.objective))
    criterion.study(some)
    encoded = criterion.encode(some, Renderer(base.tokenizer, some[0].layout), 6)
    assert encoded.truncated == 1
    ids = [item.texts[0].ids for item in encoded.rows]
    assert len(ids[0]) == 6
    assert all(some[0] == 0 and some[-1] == 1 for some in ids)


@pytest.mark.parametrize("quantization", ["int8", "int4", "int8_weight_only"])
def test_a_new_head_stands_on_a_quantized_base_model(quantization: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", hidden_size=64)
    run = trained(job(tmp_path, model, "sequence_classification", quantization=quantization, num_epochs=6))
    evaluation = evaluated(run)
    assert evaluation.base and evaluation.adapter
    assert evaluation.adapter.loss < evaluation.base.loss
