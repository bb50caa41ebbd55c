"""Trainers compared: only where they did the same work, and on a GPU only where there is one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_training
from benchmarks.side_by_side import OURS, Peer, Run, in_our_order, in_turns, job_of
from peft_studio.config import TrainingConfig

RUN = Run(tokens_per_second=1000, tokens=5000, loss=2.0, peak_mb=800, seconds_to_first_forward=3)
PEERS = {"other": Peer("trl_sft", ())}


def test_runs_alternate_and_are_compared_by_their_medians() -> None:
    order: list[str] = []

    def ours(turn: int) -> Run:
        order.append(f"ours {turn}")
        return replace(RUN, tokens_per_second=1000 + turn)

    def theirs(peer: Peer) -> Run:
        order.append(peer.script)
        return replace(RUN, tokens_per_second=500, peak_mb=1600)

    runs = in_turns(PEERS, 3, ours, theirs)
    assert order == ["ours 0", "trl_sft", "ours 1", "trl_sft", "ours 2", "trl_sft"]
    found = {figure.name.partition(": ")[2]: figure for figure in gpu_training.figures("LoRA", runs)}
    assert found["ours over other"].value == 1001 / 500
    assert found["our peak memory over the leanest peer's"].value == 0.5
    assert all(figure.holds is not False for figure in found.values())


@pytest.mark.parametrize("other", [replace(RUN, loss=2.02), replace(RUN, tokens=5200), replace(RUN, tokens=4800)])
def test_who_did_other_work_is_not_compared(other: Run) -> None:
    with pytest.raises(RuntimeError, match="other did other work"):
        in_turns(PEERS, 1, lambda _: RUN, lambda _: other)


def test_rounds_of_ours_that_did_other_work_are_not_compared() -> None:
    with pytest.raises(RuntimeError, match="ours did other work"):
        in_turns(PEERS, 2, lambda turn: replace(RUN, tokens=5000 + 200 * turn), lambda _: RUN)


def test_who_makes_whole_steps_alone_may_see_fewer_tokens_and_no_more() -> None:
    peers = {"other": Peer("axolotl_sft", (), whole_steps=True)}
    assert in_turns(peers, 1, lambda _: RUN, lambda _: replace(RUN, tokens=4100))
    for other in (replace(RUN, tokens=3900), replace(RUN, tokens=5200)):
        with pytest.raises(RuntimeError, match="other did other work"):
            in_turns(peers, 1, lambda _: RUN, lambda _, other=other: other)


def test_peers_take_rows_in_the_order_in_which_ours_shuffles_them(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{n}\n" for n in range(20)))
    shuffled = in_our_order(rows).read_text().splitlines()
    assert shuffled != sorted(shuffled, key=int)
    assert sorted(map(int, shuffled)) == list(range(20))


@pytest.mark.parametrize("way", gpu_training.WAYS)
def test_what_is_measured_on_a_gpu_is_a_job_that_the_studio_takes(way: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, tmp_path / "rows.jsonl", gpu_training.TARGETS, **gpu_training.WAYS[way])
    assert TrainingConfig(**job).effective_quantization == gpu_training.WAYS[way].get("quantization", "none")
    assert OURS not in gpu_training.PEERS


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "gpu_training"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "bench-gpu measures on an NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr
