"""Files that are whole or not there, and the temporary files that killed processes leave."""

import subprocess
import sys
from pathlib import Path

import pytest

from earmark.atomic import replacing, temporaries

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
