"""Every command of README and docs is one that Earmark takes, the quick ones run, and so does the Python."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.config import checked_sweep
from earmark.cli.hydra_app import DEFAULT_CONFIG, SCHEMA
from earmark.cli.main import command_parser, main
from tests.conftest import ROOT
from tests.helpers.made_store import add_video, finish_store
from tests.helpers.media_clips import click_track, grey_ramp, write_clip

README = (ROOT / "README.md").read_text()
PAGES = {"README.md": README} | {f"docs/{path.name}": path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
# The name of a command is in small letters; `earmark COMMAND --help` speaks of any.
BLOCK = re.compile(r"^    (?:srun |torchrun .*-m )?earmark ([a-z].*)$", re.MULTILINE)
INLINE = re.compile(r"`(?:srun |torchrun [^`]*-m )?earmark ([a-z][^`]*)`")


def commands_of(pattern: re.Pattern[str], text: str) -> list[list[str]]:
    return [shlex.split(found, comments=True) for found in pattern.findall(text)]


COMMANDS = [
    pytest.param(command, id=f"{page} {' '.join(command)}")
    for page, text in PAGES.items()
    for pattern in (BLOCK, INLINE)
    for command in commands_of(pattern, text)
]


def test_the_pages_have_commands() -> None:
    of_readme = {command[0] for command in commands_of(BLOCK, README)}
    assert of_readme == {"doctor", "moments", "prepare", "pretrain", "evaluate", "runs"}
    assert {command[0] for command in commands_of(BLOCK, PAGES["docs/videos.md"])} == {"moments", "prepare"}
    assert ["pretrain"] in commands_of(INLINE, PAGES["docs/training.md"])  # of torchrun


def test_every_page_of_docs_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    linked = {f"docs/{name}" for text in PAGES.values() for name in re.findall(r"\]\((?:docs/)?([\w-]+\.md)", text)}
    assert set(PAGES) - {"README.md"} <= linked
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_files_that_the_pages_name_are_there() -> None:
    named = {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(r"`((?:src|tests|examples|benchmarks|docs)/[\w./-]+)`", text)
    }
    assert ("docs/objectives.md", "tests/training/test_speed.py") in named
    assert [f"{page}: {path}" for page, path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_readme_and_docs_is_understood(command: list[str]) -> None:
    name, *arguments = command
    if name in DEFAULT_CONFIG:
        overrides = [text for text in arguments if text != "-m"]
        swept, _ = checked_sweep(SCHEMA[name], DEFAULT_CONFIG[name], overrides)
        assert bool(swept) == ("-m" in arguments)
    elif arguments and "--help" not in arguments:
        assert command_parser(name).parse_args(command).run
    else:
        with pytest.raises(SystemExit) as stopped:
            command_parser(name).parse_args([name, "--help"])
        assert stopped.value.code == 0


def test_the_path_of_a_sample_is_drawn_with_the_names_of_packages() -> None:
    drawn = re.findall(r'<text class="file"[^>]*>([^<]*)<', (ROOT / "docs/path.svg").read_text())
    packages = {path.parent.name for path in (ROOT / "src/earmark").glob("*/__init__.py")}
    stations = {"media", "moments", "preparation", "clips", "encoders", "methods", "training", "evaluation"}
    assert stations <= packages
    named = {word for text in drawn for word in text.split(", ") if re.fullmatch(r"[a-z_]+", word)}
    assert named - {"mkv", "webm"} == stations


@pytest.mark.usefixtures("one_thread")
def test_the_quick_commands_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hit = click_track(48000, 24000)
    for name in ("kitchen.mp4", "workshop.mkv", "footage/a.mp4", "DIR/a.mp4", "DIR/b.mp4", "DIR/c.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        write_clip(tmp_path / name, frames=grey_ramp(16), waves=[hit] * (2 if "footage" in name else 1))
    Path("more/below").mkdir(parents=True)
    shutil.copy("kitchen.mp4", "more/below/a.wav")  # FFmpeg goes by the content
    Path("labels.txt").write_text("0.5\t0.5\thit\n")
    ran = set()
    for page in ("README.md", "docs/videos.md"):
        for command in commands_of(BLOCK, PAGES[page]):
            if command[0] in ("moments", "prepare", "doctor") and "prepare.backend=ray" not in command:
                assert main(command) == 0, f"{page}: earmark {' '.join(command)}"
                ran.add(command[0])
    assert ran == {"moments", "prepare", "doctor"}
    for name in ("kitchen.html", "moments.parquet", "kitchen.eaf", "pages/index.html"):
        assert Path(name).stat().st_size > 500


def test_the_file_tree_of_the_readme_is_that_of_the_package() -> None:
    tree = re.search(r"src/earmark/\n(.*?)\ntests/", README, re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"[\w*]+(?:\.py|/)", tree[1]))
    package = ROOT / "src" / "earmark"
    there = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")}
    assert there == named


def test_the_python_of_videos_md_runs_on_a_store_and_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Path("earmark_data/prepared/folder-1a2b3c4d")  # as it stands there
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "kitchen.mp4", frames=grey_ramp(16), waves=[click_track(48000, 24000)])
    finish_store(store, [add_video(store, "a", num_frames=1600)], {"a": [10.0 * k + 5 for k in range(10)]})
    first, second = re.findall(r"```python\n(.*?)```", PAGES["docs/videos.md"], re.DOTALL)
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["sample"]["video_before"].shape == (8, 32, 48, 3)
    exec(second, names)
    assert names["batch"]["video_before"].shape == (2, 8, 32, 48, 3)  # 10 segments in batches of 4: the last one
    assert names["epoch"] == 1
