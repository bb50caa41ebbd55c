"""A folder of a bucket as the studio uses it, over real sockets; and a bucket that is away."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from infra.rendezvous.bucket import BucketDoor
from infra.rendezvous.bucket_folder import BucketFolder
from infra.rendezvous.work import forget_work
from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable

MACHINE = "pst-abcdef-" + "4" * 32 + "-1"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="studio")
    yield f"http://{host}:{port}"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_is_a_mailbox(endpoint: str, tmp_path: Path) -> None:
    box, beside = BucketFolder("studio/machines/m/box", endpoint), BucketFolder("studio/machines/m2", endpoint)
    assert box.contents() == {} and box.read("end.json", 10) is None
    for path in ("end.json", "adapter/w", "adapter/../x", "checkpoints/step-1/state.pt", "elsewhere"):
        box.write(path, b"content")
    beside.write("end.json", b"another's")
    assert sorted(box.contents()) == ["adapter/w", "checkpoints/step-1/state.pt", "end.json"]
    assert box.read("end.json", 4) == b"cont"
    before = box.contents()["end.json"].mark
    box.write("end.json", b"changed")
    assert box.contents()["end.json"].mark != before
    box.take("adapter/w", tmp_path / "sub" / "w")
    assert (tmp_path / "sub" / "w").read_bytes() == b"content"
    box.remove(["adapter/w", "end.json", "gone"])
    assert sorted(box.contents()) == ["checkpoints/step-1/state.pt"]
    box.clear()
    box.clear()
    assert box.contents() == {} and not box.exists("elsewhere")
    assert beside.read("end.json", 100) == b"another's"


def test_a_bucket_that_is_away_is_said_to_be_and_keeps_nobody_from_going_on(endpoint: str, tmp_path: Path) -> None:
    away = Settings(data_dir=tmp_path, bucket="s3://studio/x", bucket_endpoint="http://127.0.0.1:9")
    with pytest.raises(ResourceUnavailable, match="cannot be used"):
        BucketDoor(away, MACHINE).box.contents()
    forget_work(away, MACHINE)


def test_a_bucket_that_is_not_there_is_said(endpoint: str) -> None:
    nowhere = BucketFolder("no-such-bucket/x", endpoint)
    with pytest.raises(ResourceUnavailable, match="cannot be used"):
        nowhere.contents()
    with pytest.raises(ResourceUnavailable, match="cannot be used"):
        nowhere.write("orders.json", b"{}")
    nowhere.clear()
