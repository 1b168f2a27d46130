"""Speed and memory of `earmark prepare`, beside the ffmpeg command that does the same transcode.

The sources are made from Audible Kitchen: 1920x1080 at 60 frames a second with grain, as an action camera writes it,
and 640x360 at 30. Each side runs by itself in a process of one thread, in turns, and what is compared is processor time
(user and system): ffmpeg's of its whole process, ours from the first file opened to the tables written, so without the
import of Python modules, which a worker process does once for all its videos. ffmpeg only transcodes; ours also finds
the moments, hashes every packet and writes index and catalog. Needs ffmpeg; the package itself does not.

Memory is that of the whole process, for recordings of 1, 10 and 60 minutes: their length is what matters, so they are
small, a minute of 320x180 at 16 frames a second over and over.

What it costs to read videos in a process of their own (`prepare.isolate`) is the processor time of everything that
runs, imports too, for one video and for several: so what a run costs once, and what each video does.

    python benchmarks/prepare.py [--folder DIR] [--seconds 60] [--rounds 5] [--minutes 1 10 60] [--isolation 8]

`--rounds 0` leaves the speeds out, `--minutes` without a number the memory, `--isolation 0` the cost of isolation.
"""

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from earmark.clips.store import PreparedStore
from earmark.kitchen import KitchenSize, make_kitchen

TRANSCODE = (
    "ffmpeg -v error -y -threads 1 -filter_threads 1 -i {source} -map 0:v:0 -map 0:a:0 "
    "-vf fps=16,scale=-2:128:flags=bicubic -c:v mjpeg -threads 1 -q:v 3 -c:a pcm_s16le -ac 1 -ar 16000 {target}"
)
ACTION_CAMERA = (
    "ffmpeg -v error -y -i {source} -vf scale=1920:1080,fps=60,noise=alls=4:allf=t "
    "-c:v libx264 -preset veryfast -b:v 20M -g 60 -c:a aac -ac 2 -ar 48000 {target}"
)
LONGER = "ffmpeg -v error -y -stream_loop {times} -i {source} -c copy {target}"
PREPARE = """
import json, sys, time
from pathlib import Path
import earmark.media, earmark.moments
from earmark.datasets.records import VideoRecord
from earmark.preparation import MomentSearch, Transcoding, prepare
source, store, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
before = time.process_time()
prepare([VideoRecord("a", Path(source), "train")], store, progress=False, isolate=False,
        transcoding=Transcoding(**options.get("transcoding", {})), search=MomentSearch(**options.get("search", {})))
"""
ISOLATED = """
import sys
from pathlib import Path
from earmark.datasets.records import VideoRecord
from earmark.preparation import prepare
source, store, num_videos, isolate = sys.argv[1:]
videos = [VideoRecord(str(number), Path(source), "train") for number in range(int(num_videos))]
report = prepare(videos, store, isolate=isolate == "True", progress=False)
assert not report.with_status("refused")
"""
VERIFY = """
import json, sys, time
from pathlib import Path
from earmark.preparation import verify
before = time.process_time()
assert not verify(sys.argv[1], progress=False).faults
"""
REPORT = """
seconds = time.process_time() - before
# not getrusage: its peak is that of the process that started this one, where that is larger
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "mib": int(peak.split()[1]) / 1024}))
"""


def make_source(folder: Path, seconds: float, *, width: int, height: int, fps: int) -> Path:
    """Write a video of Audible Kitchen; what is there already is used."""
    make_kitchen(
        folder,
        size=KitchenSize(1, 1, seconds, width=width, height=height, fps=fps),
    )
    return next(folder.rglob("*.MP4"))


def make_sources(folder: Path, seconds: float) -> dict[str, Path]:
    """Write both sources whose speed is measured."""
    small = make_source(folder / "kitchen", seconds, width=640, height=360, fps=30)
    large = folder / f"large_{seconds:.0f}.mp4"
    if not large.exists():
        run(ACTION_CAMERA, source=small, target=large)
    return {"1920x1080, 60 fps": large, "640x360, 30 fps": small}


def run(command: str, **values: object) -> float:
    """Run a command and return its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(shlex.split(command.format(**values) if values else command), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare_once(source: Path, store: Path, **options: object) -> dict[str, float]:
    """Prepare one source into a new store; return processor time in seconds and the largest resident size in MiB."""
    return measured(PREPARE, str(source), str(store), json.dumps(options))


def measured(code: str, *arguments: str) -> dict[str, float]:
    """Run Python code in a process of its own; return what it prints."""
    command = [sys.executable, "-c", code + REPORT, *arguments]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def compare(name: str, source: Path, folder: Path, seconds: float, rounds: int) -> None:
    """Print the times of both sides, in turns, and of the sparse mode."""
    theirs, ours, sparse = [], [], []
    for number in range(rounds):
        theirs.append(run(TRANSCODE, source=source, target=folder / "ffmpeg.mov"))
        ours.append(prepare_once(source, folder / f"whole_{number}")["seconds"])
        options = {
            "transcoding": {"around": "moments"},
            "search": {"detector": "replai", "min_prominence": 1.5},
        }
        sparse.append(prepare_once(source, folder / f"sparse_{number}", **options)["seconds"])
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    rates = [seconds / statistics.median(times) for times in (theirs, ours, sparse)]
    whole, kept = (PreparedStore(folder / f"{kind}_0").videos["a"] for kind in ("whole", "sparse"))
    print(
        f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | {rates[2]:.1f}, {kept.num_frames / whole.num_frames:.0%} kept |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the sources")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=int, nargs="*", default=[1, 10, 60], help="lengths whose memory is measured")
    parser.add_argument("--isolation", type=int, default=8, help="videos beyond the first to measure isolation by")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.rounds:
            speed(folder, options.seconds, options.rounds)
        if options.isolation:
            isolation(folder, options.seconds, options.isolation, max(1, options.rounds))
        if options.minutes:
            memory(folder, options.minutes)


def speed(folder: Path, seconds: float, rounds: int) -> None:
    """Print how fast both sides are."""
    print(TRANSCODE.format(source="SOURCE", target="TARGET.mov"), end="\n\n")
    print("| source | ffmpeg, x real time | ours | ours / ffmpeg | ours, around moments |\n|---|---|---|---|---|")
    for name, source in make_sources(folder, seconds).items():
        with tempfile.TemporaryDirectory(dir=folder) as stores:
            compare(name, source, Path(stores), seconds, rounds)


def isolation(folder: Path, seconds: float, num_more: int, rounds: int) -> None:
    """Print the processor time of a run and of each video, with and without a process of its own."""
    print("\n| source | | once, s | each video, s |\n|---|---|---|---|")
    for name, source in make_sources(folder, seconds).items():
        times: dict[tuple[bool, int], list[float]] = {}
        for _ in range(rounds):
            for isolate in (False, True):
                for num_videos in (1, 1 + num_more):
                    with tempfile.TemporaryDirectory(dir=folder) as store:
                        command = [sys.executable, "-c", ISOLATED, str(source), store, str(num_videos), str(isolate)]
                        times.setdefault((isolate, num_videos), []).append(run(shlex.join(command)))
        for isolate in (False, True):
            first, all_of_them = (statistics.median(times[isolate, count]) for count in (1, 1 + num_more))
            each = (all_of_them - first) / num_more
            print(f"| {name} | isolate={isolate} | {first - each:.2f} | {each:.3f} |", flush=True)


def memory(folder: Path, lengths: list[int]) -> None:
    """Print the most memory of a process that prepares a recording of so many minutes, and of one that verifies it."""
    source = make_source(folder / "minute", 60.0, width=320, height=180, fps=16)
    print("\n| length | prepare, MiB | around moments, MiB | verify, MiB |\n|---|---|---|---|")
    for length in lengths:
        long = folder / f"minutes_{length}.mp4"
        run(LONGER, source=source, target=long, times=length - 1)
        with tempfile.TemporaryDirectory(dir=folder) as stores:
            whole = prepare_once(long, Path(stores) / "whole")
            sparse = prepare_once(long, Path(stores) / "sparse", around="moments")
            verified = measured(VERIFY, str(Path(stores) / "whole"))
        print(f"| {length} min | {whole['mib']:.0f} | {sparse['mib']:.0f} | {verified['mib']:.0f} |", flush=True)
        long.unlink()


if __name__ == "__main__":
    main()
