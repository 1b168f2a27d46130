"""Files that are whole or not there, and the temporary files that killed processes leave."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earmark.atomic import is_abandoned, remove_abandoned, replacing, require_writable, scratch_folder, temporaries

KILLED = """
import os, sys
from earmark.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os._exit(9)
"""


@pytest.mark.parametrize("name", ["latest_00000001.pt", "P02.5.mov", "P02.index.npz", "store.json.version", "README"])
def test_the_leftover_of_a_killed_process_is_found_with_the_file_it_was_meant_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / "videos" / "P02" / name
    path.parent.mkdir(parents=True)
    path.write_text("whole")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == 9
    ((temporary, meant_for),) = temporaries(path.parent)
    assert meant_for == path
    assert (temporary.read_text(), path.read_text()) == ("half", "whole")
    assert list(temporaries(tmp_path / "videos")) == []
    assert list(temporaries(tmp_path / "videos", recursive=True)) == [(temporary, path)]
    assert list(temporaries(tmp_path / "no such folder")) == []


def test_only_names_that_replacing_gives_are_temporaries(tmp_path: Path) -> None:
    for name in (".keep", ".a.tmp.pt", ".a.123-xyz.tmp.pt", "a.123-0123abcd.tmp.pt", ".a.123-0123abcd.pt"):
        (tmp_path / name).write_text("mine")
    assert list(temporaries(tmp_path)) == []


def test_a_failed_block_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("after")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail_half_way()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


WRITING = """
import sys, time
from earmark.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
        assert len(list(temporaries(path.parent))) == 2
        remove_abandoned(tmp_path, recursive=True)
        assert len(list(temporaries(path.parent))) == 2
        processes[0].send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, processes[0].pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has waited for it
        remove_abandoned(tmp_path)  # not below it
        assert len(list(temporaries(path.parent))) == 2
        remove_abandoned(tmp_path, recursive=True)
        ((living, _),) = temporaries(path.parent)
        assert f".{processes[1].pid}-" in living.name
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    remove_abandoned(path.parent)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("writer", ["1-0123abcd", "1-89abcdef-0123abcd", "4194303999-0123abcd"])
def test_what_another_machine_writes_is_removed_when_it_is_old(tmp_path: Path, writer: str) -> None:
    path = tmp_path / f".a.{writer}.tmp.txt"
    path.write_text("half")
    assert not is_abandoned(path)
    os.utime(path, (time.time() - 3600,) * 2)
    assert is_abandoned(path)
    remove_abandoned(tmp_path)
    assert not path.exists()


def test_files_that_are_no_temporaries_are_not_abandoned(tmp_path: Path) -> None:
    path = tmp_path / ".keep"
    path.touch()
    os.utime(path, (time.time() - 3600,) * 2)
    assert not is_abandoned(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    def write(path: Path, error: OSError) -> None:
        with replacing(path):
            raise error

    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "a.txt", OSError(errno.ENOSPC, "No space left on device"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    with pytest.raises(FileNotFoundError) as missing:
        write(tmp_path / "a.txt", FileNotFoundError(errno.ENOENT, "No such file", "source.wav"))
    assert missing.value.filename == "source.wav"
    (tmp_path / "b").mkdir()

    def replace_folder() -> None:
        with replacing(tmp_path / "b") as temporary:
            temporary.touch()

    with pytest.raises(IsADirectoryError) as taken:
        replace_folder()
    assert taken.value.filename == str(tmp_path / "b")


def test_a_folder_is_tried_without_a_trace(tmp_path: Path) -> None:
    require_writable(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="cannot be written to: Not a directory") as caught:
            require_writable(folder)
        assert caught.value.filename == str(folder)
    (tmp_path / "nowhere").symlink_to("circle/nowhere")
    with pytest.raises(OSError, match="cannot be written to"):
        require_writable(tmp_path / "nowhere")


SCRATCH = """
import time
from earmark.atomic import scratch_folder
with scratch_folder() as folder:
    (folder / "input").write_text("half")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_scratch_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "earmark-of-a-user").mkdir()
    processes = [subprocess.Popen([sys.executable, "-c", SCRATCH], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, living = (Path(process.stdout.readline().strip()) for process in processes if process.stdout)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        with scratch_folder() as own:
            assert own.parent == tmp_path
            assert set(tmp_path.iterdir()) == {living, own, tmp_path / "earmark-of-a-user"}
        assert not killed.exists()
        assert not own.exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
