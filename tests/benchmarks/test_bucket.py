"""A benchmark on a bucket is that on a folder: same records, nothing lost or double, one run at a time, one sentence.

The bucket is that of moto's server on this machine; nothing goes over a network.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from benchmark_cases import records_of, tiny_network, write_coco
from click.testing import CliRunner

import perturb_tutorial.benchmarks.claims as claims
from perturb_tutorial.benchmarks import (
    BenchmarkData,
    BenchmarkError,
    BenchmarkSettings,
    BucketError,
    compared_summary,
    merged_summary,
    read_data,
    read_records,
    run_benchmark,
)
from perturb_tutorial.benchmarks.claims import claim
from perturb_tutorial.benchmarks.store import Store
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.cli import app
from perturb_tutorial.datasets import read_coco_json
from perturb_tutorial.images import load_images
from perturb_tutorial.places import as_place
from perturb_tutorial.places.buckets import BucketPath
from perturb_tutorial.places.requests import _client_of, client
from perturb_tutorial.reading import read_bytes

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
pytest.importorskip("boto3", reason="buckets need the extra cloud")
moto_server = pytest.importorskip("moto.server", reason="moto is in the extra tests")

BOX = (4.0, 4.0, 12.0, 12.0)
CLASSES = {1: (0,), 2: (1, 2), 3: (3,)}
SETTINGS = BenchmarkSettings(methods=("gradient", "grad_cam"), batch_size=2)
SECRET = "wJalrXUtnFEMIsecret"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its address; the credentials of this process are made up."""
    chosen = {
        "AWS_ACCESS_KEY_ID": "AKIAsecretid",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "2",
    }
    served = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        served.start()
        address = "http://{}:{}".format(*served.get_host_and_port())
        for name, value in {**chosen, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        _client_of.cache_clear()
        yield address
        _client_of.cache_clear()
        served.stop()


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> str:
    """The URL of a new bucket."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"


def upload(folder: Path, url: str) -> None:
    place = as_place("url", url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (place / path.relative_to(folder).as_posix()).write(path.read_bytes())


def keys(url: str) -> list[str]:
    place = as_place("url", url)
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.key)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def far_data(url: str) -> BenchmarkData:
    dataset = read_coco_json(f"{url}/annotations.json", f"{url}/images", name="small")
    return BenchmarkData(dataset, CLASSES)


def same(first: Any, second: Any) -> None:
    pd.testing.assert_frame_equal(records_of(first), records_of(second), check_exact=True)


def test_a_run_on_a_bucket_equals_the_run_on_a_folder(tmp_path: Path, bucket: str) -> None:
    near = write_coco(tmp_path, 5, [(1, BOX), (2, (60.0, 40.0, 12.0, 12.0))])
    (tmp_path / "images" / "0003.png").write_bytes(b"no picture")
    (tmp_path / "images" / "0004.png").unlink()
    near = BenchmarkData(
        read_coco_json(tmp_path / "annotations.json", tmp_path / "images", name="small"), CLASSES
    )
    upload(tmp_path, f"{bucket}/data")
    data = far_data(f"{bucket}/data")
    network, out = tiny_network(), f"{bucket}/deep/out"
    run_benchmark("pointing-game", near, network, tmp_path / "out", SETTINGS)
    there = run_benchmark("pointing-game", data, network, out, SETTINGS)
    problem = there.summary["records"]["problems"]
    assert [line.partition(":")[0] for line in problem] == ["0003.png", "0004.png"]
    # What is missing is so from its own folder.
    assert problem[1] == f"0004.png: the image is missing from {bucket}/data/images"
    table = read_records(out)
    assert len(table) == 5 * 2 * 3
    columns = [name for name in table.columns if name not in ("seconds", "problem")]
    pd.testing.assert_frame_equal(
        records_of(out)[columns], records_of(tmp_path / "out")[columns], check_exact=True
    )
    for name in ("settings.json", "summary.json"):
        ours = json.loads(read_bytes(as_place("url", out) / name, 1))
        local = json.loads((tmp_path / "out" / name).read_text())
        for content in (ours, local):
            content.pop("checksum")
            content.get("records", {}).pop("seconds", None)
            content.get("records", {}).pop("problems", None)
        assert ours == local
    again = run_benchmark("pointing-game", data, network, out, SETTINGS)
    assert (again.computed, again.repaired, str(again.folder)) == (0, (), out)
    with pytest.raises(ValueError, match=r"records of other settings \(seed was 0, is 1\)"):
        run_benchmark("pointing-game", data, network, out, SETTINGS.replace(seed=1))
    assert {key.rpartition("/")[2] for key in keys(out)} == {
        ".lock", "settings.json", "summary.json", *(f"part-{number:08d}.parquet" for number in range(15))
    }  # fmt: skip


def test_data_sets_are_read_from_a_bucket_in_their_own_layouts(tmp_path: Path, bucket: str) -> None:
    write_coco(tmp_path / "coco", 3, [(1, BOX)])
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    content["categories"] = [
        {"id": 1, "name": "person"},
        {"id": 2, "name": "bicycle"},
        {"id": 3, "name": "car"},
    ]
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    classes = tmp_path / "imagenet" / "val" / "n01440764", tmp_path / "imagenet" / "val" / "n01443537"
    for number, folder in enumerate(classes):
        folder.mkdir(parents=True)
        (folder / f"a{number}.png").write_bytes((tmp_path / "coco" / "images" / "0000.png").read_bytes())
    (tmp_path / "coco" / "images").rename(tmp_path / "coco" / "val2014")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "coco" / "val2014").rename(tmp_path / "parts" / "images")
    upload(tmp_path / "parts" / "images", f"{bucket}/coco/val2014")
    upload(tmp_path, bucket)
    for url, benchmark in (
        ("coco", "pointing-game"),
        ("imagenet", "localization"),
        ("parts", "animal-parts"),
    ):
        found = read_data(benchmark, f"{bucket}/{url}").dataset
        assert len(found.images) == (2 if url == "imagenet" else 3)
        for image in found.images:
            assert image.problem is None
            assert isinstance(image.path, BucketPath)
            assert pickle.loads(pickle.dumps(image)) == image
            assert image.path.is_file()
    (one,) = load_images(found.images[0].path, 32)
    assert one.equal(load_images(tmp_path / "parts" / "images" / "0000.png", 32)[0])
    (tmp_path / "coco" / "val2014").mkdir()
    assert read_data("pointing-game", (tmp_path / "coco").as_uri()).dataset.name == "instances_val2014"
    with pytest.raises(ValueError, match=rf"^data: {bucket}/nothing is not a folder"):
        read_data("pointing-game", f"{bucket}/nothing")


KILLED = """
# Imports are done once: each run is a fork, which SIGKILL ends after it wrote the stated number of parts.
import json, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from benchmark_cases import tiny_network
from test_bucket import SETTINGS, far_data, keys
from perturb_tutorial.benchmarks import claims, run_benchmark

claims.EXPIRY = 1.0  # the next run waits for so long, since the lock of a killed one stays
data, network, out = far_data(sys.argv[2]), tiny_network(), sys.argv[3]

def start():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run_benchmark("pointing-game", data, network, out, SETTINGS)
            status = 0
        finally:
            os._exit(status)
    return child

def parts():
    return len([key for key in keys(out) if "/part-" in key])

progress = []
for more in map(int, sys.argv[4:]):
    wanted, child = parts() + more, start()
    while parts() < wanted:
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    progress.append(parts())
_, status = os.waitpid(start(), 0)
assert status == 0, status
print(json.dumps(progress))
"""


def test_a_run_that_is_killed_loses_and_doubles_nothing(tmp_path: Path, bucket: str) -> None:
    pytest.importorskip("fcntl", reason="SIGKILL is POSIX's")
    near = write_coco(tmp_path, 6, [(1, BOX), (2, (60.0, 40.0, 12.0, 12.0))])
    upload(tmp_path, f"{bucket}/data")
    rng, out = random.Random(7), f"{bucket}/out"
    line = [sys.executable, "-c", KILLED, str(Path(__file__).parent), f"{bucket}/data", out]
    done = subprocess.run(
        [*line, *(str(rng.randint(1, 4)) for _ in range(3))], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    progress = json.loads(done.stdout.splitlines()[-1])
    assert len(progress) == 3
    assert progress == sorted(progress)
    assert 0 < progress[-1] < 18
    run_benchmark("pointing-game", near, tiny_network(), tmp_path / "out", SETTINGS)
    assert not read_records(out).duplicated(["image_id", "category_id", "method"]).any()
    same(out, tmp_path / "out")


def test_of_two_runs_at_once_one_is_refused(tmp_path: Path, bucket: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims, "EXPIRY", 2.0)
    data, network, out = write_coco(tmp_path, 2, [(1, BOX)]), tiny_network(), f"{bucket}/out"
    measure, began, refused = Worker.measure, threading.Event(), threading.Event()

    def patient(self: Worker, batch: Any) -> Any:
        began.set()
        assert refused.wait(60)
        return measure(self, batch)

    monkeypatch.setattr(Worker, "measure", patient)
    first = threading.Thread(target=run_benchmark, args=("pointing-game", data, network, out, SETTINGS))
    first.start()
    assert began.wait(60)
    with (
        pytest.warns(UserWarning, match=r"waiting for up to 2 s to see whether it is alive"),
        pytest.raises(
            BenchmarkError, match=r"^s3://.*/out is in use by another run \(.*process \d+\); wait for it"
        ),
    ):
        run_benchmark("pointing-game", data, network, out, SETTINGS)
    refused.set()
    first.join()
    assert run_benchmark("pointing-game", data, network, out, SETTINGS).computed == 0


def test_a_lock_that_nobody_renews_is_taken_over_and_its_owner_stops(bucket: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims, "EXPIRY", 1.0)
    folder = as_place("url", bucket) / "out"
    paused = claims._BucketLock(folder)
    monkeypatch.setattr(paused, "_beats", threading.Thread(target=time.sleep, args=(0,)))
    old = paused.claim()
    began = time.monotonic()
    with pytest.warns(UserWarning, match="waiting"):
        taken = claim(folder)
    with taken as new:
        assert 0.5 < time.monotonic() - began < 10
        time.sleep(1.1)  # longer than it lasts: it is renewed meanwhile
        new.check()
        with pytest.raises(BenchmarkError, match="was taken over by another run while this one stood still"):
            old.check()
        store = Store(folder / "r.parquet", {"image_id": "int64"}, old)
        with pytest.raises(BenchmarkError, match="was taken over"):
            store.append(0, [{"image_id": 1}])
        old.close()
        new.check()
    claim(folder).close()  # at once, since it was released


def test_a_lock_of_somebody_else_is_left_alone(bucket: str) -> None:
    place = as_place("url", bucket) / ".lock"
    for content in (b"[]", b"{", b'{"program": "x"}', b"x" * 20_000):
        place.write(content)
        with pytest.raises(
            BenchmarkError, match=r"\.lock is not a lock of perturb-tutorial; give another folder"
        ):
            claim(place.parent)
        assert read_bytes(place, 1) == content
    place.write(b"")  # as a run on a folder leaves it
    claim(place.parent).close()


def test_a_store_without_conditional_writes_is_refused(bucket: str, monkeypatch: Any) -> None:
    write = BucketPath.write
    monkeypatch.setattr(BucketPath, "write", lambda self, content, **_: write(self, content))
    with pytest.raises(BenchmarkError, match="ignores If-None-Match and If-Match, so that two runs could"):
        claim(as_place("url", bucket))


def test_a_damaged_part_is_set_aside_and_done_again(tmp_path: Path, bucket: str) -> None:
    data, network, out = write_coco(tmp_path, 3, [(1, BOX)]), tiny_network(), f"{bucket}/out"
    run_benchmark("pointing-game", data, network, out, SETTINGS)
    before = records_of(out)
    part = as_place("url", out) / "records.parquet" / "part-00000001.parquet"
    whole = read_bytes(part, 1)
    part.write(whole[:-200] + b"\0" + whole[-199:])
    with pytest.raises(BenchmarkError, match=r"s3://.*part-00000001.parquet is damaged: its checksum"):
        read_records(out)
    again = run_benchmark("pointing-game", data, network, out, SETTINGS)
    (line,) = again.repaired
    assert "it is _damaged-part-00000001.parquet now, 2 records of it done again" in line
    assert again.computed == 2
    pd.testing.assert_frame_equal(records_of(out), before)
    assert read_bytes(part.with_name(f"_damaged-{part.name}"), 1) != whole
    # What a run that lost its lock writes late does not replace what is there.
    present = read_bytes(part, 1)
    Store(part.parent, {"image_id": "int64"}).append(1, [{"image_id": 1}])
    assert read_bytes(part, 1) == present


def test_runs_in_buckets_are_merged_and_compared(tmp_path: Path, bucket: str) -> None:
    network = tiny_network()
    for name, count in (("a", 2), ("b", 4)):
        data = write_coco(tmp_path / name, count, [(1, BOX)])
        if name == "b":
            images = data.dataset.images[2:]
            data = BenchmarkData(type(data.dataset)("small", images, data.dataset.categories), CLASSES)
        for out in (f"{bucket}/{name}", tmp_path / "out" / name):
            run_benchmark("pointing-game", data, network, out, SETTINGS)
    far = merged_summary([f"{bucket}/a", f"{bucket}/b"])
    assert far["figures"] == merged_summary([tmp_path / "out" / name for name in "ab"])["figures"]
    pair = compared_summary(f"{bucket}/a", tmp_path / "out" / "a", ("far", "near"))
    assert pair["records"]["finished"] == 2 * 3
    with pytest.raises(BenchmarkError, match=r"^s3://.*/c/summary.json is missing: the run is not finished"):
        compared_summary(f"{bucket}/c", f"{bucket}/a", ("far", "near"))


def call(*arguments: str) -> Any:
    return CliRunner().invoke(
        app, ["benchmark", "pointing-game", "--network", "efficientnet_lite0", *arguments]
    )


def refusal(error: BaseException) -> str:
    """Its message; nothing secret is in it, nor in what a traceback would show of it."""
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert "AKIA" not in shown
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "no credentials were found; set AWS_ACCESS_",
        ),
        ({"AWS_SECRET_ACCESS_KEY": None}, "the credentials are not complete; set AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE names a profile that AWS's configuration does not have"),
        (
            {"AWS_ENDPOINT_URL": f"http://user:{SECRET}@127.0.0.1:1"},
            "no answer: EndpointConnectionError; is the ",
        ),
        ({"AWS_ENDPOINT_URL": f"user:{SECRET}@"}, "AWS_ENDPOINT_URL is not the address of a server; mend it"),
        ({}, "there is no such bucket; make it first, or mend its name"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_sentence_without_secrets(
    tmp_path: Path, server: str, monkeypatch: Any, environment: dict[str, str | None], sentence: str
) -> None:
    data = write_coco(tmp_path, 1, [(1, BOX)])
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    _client_of.cache_clear()
    try:
        for action in (
            lambda: read_data("pointing-game", "s3://not-there/coco"),
            lambda: run_benchmark("pointing-game", data, tiny_network(), "s3://not-there/out", SETTINGS),
            lambda: read_records("s3://not-there/out"),
            lambda: load_images(BucketPath("not-there", "a.png"), 32),
        ):
            with pytest.raises(BucketError) as caught:
                action()
            assert sentence in refusal(caught.value)
        result = call("--data", "s3://not-there/coco", "--output", str(tmp_path / "out"))
        assert result.exit_code != 0
        assert sentence in result.output
        assert SECRET not in result.output
    finally:
        _client_of.cache_clear()


def test_a_bucket_that_stops_answering_is_no_problem_of_its_images(
    tmp_path: Path, bucket: str, monkeypatch: Any
) -> None:
    write_coco(tmp_path, 4, [(1, BOX)])
    upload(tmp_path, f"{bucket}/data")
    data = far_data(f"{bucket}/data")
    read, calls = BucketPath.read, []

    def broken(self: BucketPath, check: Any) -> bytes:
        calls.append(self)
        if self.name == "0003.png":
            raise BucketError("s3://bucket: no answer")
        return read(self, check)

    monkeypatch.setattr(BucketPath, "read", broken)
    with pytest.raises(BucketError, match="no answer"):
        run_benchmark("pointing-game", data, tiny_network(), tmp_path / "out", SETTINGS)
    assert len(read_records(tmp_path / "out")) == 6
    assert not read_records(tmp_path / "out")["problem"].notna().any()
    monkeypatch.undo()
    assert run_benchmark("pointing-game", data, tiny_network(), tmp_path / "out", SETTINGS).computed == 6


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"s3://user:{SECRET}@bucket/x", "without user, password, query"),
        (f"s3://bucket/x?X-Amz-Signature={SECRET}", "without user, password, query"),
        ("s3://bucket/a/../b", "without user, password, query"),
        ("s3://", "expected s3://bucket/folder"),
        (f"https://bucket.s3.amazonaws.com/x?X-Amz-Signature={SECRET}", "got a URL of https://"),
        ("gs://bucket/x", "expected a folder, file:///folder or s3://bucket/folder, got a URL of gs://"),
        ("file://host/x", "expected file:///folder, without host"),
        (Path("s3://bucket/x"), "expected a URL as text, got a path of pathlib"),
    ],
)
def test_a_url_of_another_form_is_refused_and_not_shown(tmp_path: Path, url: Any, sentence: str) -> None:
    data = write_coco(tmp_path, 1, [(1, BOX)])
    for name, action in {
        "data": lambda: read_data("pointing-game", url),
        "output": lambda: run_benchmark("pointing-game", data, tiny_network(), url),
        "folder": lambda: read_records(url),
        "folders": lambda: merged_summary([url]),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: ") as caught:
            action()
        assert sentence in refusal(caught.value)
    if isinstance(url, str):
        result = call("--data", url, "--output", str(tmp_path / "out"))
        assert result.exit_code != 0
        assert "--data: " in result.output
        assert sentence in result.output
        assert SECRET not in result.output


def test_a_folder_may_be_named_by_a_url(tmp_path: Path) -> None:
    data, folder = write_coco(tmp_path, 1, [(1, BOX)]), tmp_path / "with space é"
    outcome = run_benchmark("pointing-game", data, tiny_network(), folder.as_uri(), SETTINGS)
    assert outcome.folder == folder
    assert len(read_records(folder.as_uri())) == len(read_records(folder)) == 3


def test_without_boto3_the_command_that_installs_it_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    _client_of.cache_clear()
    with pytest.raises(ImportError, match=r"boto3: pip install 'perturb_tutorial\[cloud\]'"):
        read_records("s3://bucket/out")


def test_paths_in_a_bucket_are_those_of_pathlib(tmp_path: Path, bucket: str) -> None:
    """What lies where, by name and pattern, also in a folder of more objects than one answer holds."""
    for name in ("a/n01/x.png", "a/n02/y.jpg", "a/n02/z.png", "a/b.txt", "a/.hidden", "a-b/c", "ä b/+%.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    upload(tmp_path, bucket)
    (as_place("url", bucket) / "a").write(b"")  # an object with the name of a folder
    far = as_place("url", f"{bucket}/")

    def seen(root: Any, paths: Any) -> list[str]:
        return sorted(str(path)[len(str(root)) + 1 :].replace(os.sep, "/") for path in paths)

    for pattern in ("*", "a/*", "*/n*/*.png", "a/n0?/*", "nothing/*"):
        assert seen(far, far.glob(pattern)) == seen(tmp_path, tmp_path.glob(pattern))
    assert seen(far, (far / "a").iterdir()) == seen(tmp_path, (tmp_path / "a").iterdir())
    for name in ("a", "a/n01", "a/n", "a/b.txt", "nothing", "a-b"):
        assert (far / name).is_dir() == (tmp_path / name).is_dir()
        assert (far / name).exists() == (tmp_path / name).exists()
    assert [str(p) for p in sorted([far / "a-b" / "c", far / "a" / "b"])] == [
        f"{bucket}/a/b",
        f"{bucket}/a-b/c",
    ]
    path = far / "ä b" / "+%.txt"
    assert (path.name, path.stem, path.suffix, path.parent.name) == ("+%.txt", "+%", ".txt", "ä b")
    assert read_bytes(path, 1).decode() == "ä b/+%.txt"
    moved = path.with_name("moved")
    path.replace(moved)
    assert (path.exists(), moved.exists()) == (False, True)
    with pytest.raises(FileNotFoundError):
        read_bytes(path, 1)
    with pytest.raises(OSError, match="more than 0"):
        read_bytes(moved, 0)
    with pytest.raises(TypeError):
        Path(path)  # type: ignore[arg-type]  # the mistake
