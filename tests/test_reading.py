"""Files from elsewhere are regular, of a stated size, and never waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from perturb_tutorial import reading


def test_a_file_at_the_end_of_links_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "second").symlink_to("link")
    assert reading.read_bytes(tmp_path / "second", 1) == b"content"
    with reading.open_regular(str(tmp_path / "second"), 1) as file:
        assert file.read(3) == b"con"


def test_the_limit_is_the_last_size_that_is_read(tmp_path: Path) -> None:
    for size, fits in ((10**6, True), (10**6 + 1, False)):
        with (tmp_path / "file").open("wb") as file:
            file.truncate(size)
        if fits:
            assert len(reading.read_bytes(tmp_path / "file", 1)) == size
        else:
            with pytest.raises(OSError, match=r"it has 1\.0 MB, more than 1"):
                reading.read_bytes(tmp_path / "file", 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it takes the file's place after the look at it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        reading.open_regular(tmp_path / "pipe", 1)
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        reading.open_lock(tmp_path / "pipe")
    looked = os.stat(tmp_path / "file")
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda _: looked)
        with pytest.raises(OSError, match="it is a named pipe, not a file"):
            reading.open_regular(tmp_path / "pipe", 1)
    assert len(os.listdir("/dev/fd")) == before


def test_a_lock_is_made_and_kept(tmp_path: Path) -> None:
    with reading.open_lock(tmp_path / "lock") as lock:
        lock.write(b"1")
    reading.open_lock(tmp_path / "lock").close()
    assert (tmp_path / "lock").read_bytes() == b"1"
    assert stat.S_ISREG((tmp_path / "lock").stat().st_mode)


@pytest.mark.parametrize(
    ("text", "depth"), [("1", 0), ("[]", 1), ("{}", 1), ("[1, [2]]", 2), ('{"a": {"b": [1]}, "c": 1}', 3)]
)
def test_json_is_as_deep_as_its_lists_and_objects(tmp_path: Path, text: str, depth: int) -> None:
    (tmp_path / "file.json").write_text(text)
    assert reading.read_json(tmp_path / "file.json", 1, depth=depth) == eval(text)
    if depth:
        with pytest.raises(ValueError, match=f"it is nested more than {depth - 1} deep"):
            reading.read_json(tmp_path / "file.json", 1, depth=depth - 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_in_each_of_its_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "file.json").write_bytes('{"λ": 1}'.encode(encoding))
    assert reading.read_json(tmp_path / "file.json", 1) == {"λ": 1}
