"""The command `earmark moments`: files in, moments out, as a table, labels, pages, clips and a score.

Files are read one by one, or side by side in worker processes. What the command needs is imported when it runs, so that
``earmark --help`` stays fast.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from earmark.atomic import remove_abandoned, require_writable, scratch_folder
from earmark.cli.moments_file import Job, OutputFailure, Search, examine
from earmark.cli.moments_inputs import inputs
from earmark.cli.moments_score import complain, read_truths, score
from earmark.cli.terminal import DONE, FAILED, clock, non_negative, num_cpus, positive, print_json, screen
from earmark.wording import counted, visible

if TYPE_CHECKING:
    from earmark.moments.writing import FileMoments

__all__ = ["add_arguments"]

DETECTORS = ("earmark", "replai")  # those of earmark.moments, which is slow to import
PAGES = (".png", ".html")
_INDEX_NAME = "index"  # of the page that leads to those of the files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.epilog = (
        "A moment's score is in the detector's own measure, its loudness the level of the 100 ms from it on, in dB "
        "re full scale. Exit code 1 only if no file could be read."
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|FOLDER|GLOB",
        help="videos or sound files; all of them below a folder; those that match a quoted pattern ('**' goes into "
        "folders); - for a wav from standard input",
    )
    search = parser.add_argument_group("what counts as a moment")
    search.add_argument(
        "--detector", choices=DETECTORS, default=DETECTORS[0], help="what finds them (default: %(default)s)"
    )
    search.add_argument(
        "--min-score", type=non_negative, metavar="SCORE", help="least score of a moment (default: the detector's own)"
    )
    search.add_argument(
        "--min-distance", type=non_negative, metavar="SECONDS", help="least distance between neighbours"
    )
    search.add_argument("--max-per-minute", type=positive, metavar="N", help="keep the N best of each minute")
    search.add_argument(
        "--margin", type=non_negative, default=0.0, metavar="SECONDS", help="leave out moments nearer to either end"
    )
    search.add_argument(
        "--track", type=positive, metavar="N", help="sound track to listen to, from 1 (default: the file's own choice)"
    )
    output = parser.add_argument_group("what is made of them")
    output.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".csv, .json, .parquet: one table; .txt (Audacity labels), .vtt (WebVTT), .eaf (ELAN): labels of one "
        "file; those of several go to files of their own, their names put before the suffix",
    )
    output.add_argument(
        "--plot",
        type=Path,
        metavar="FILE|DIR",
        help="draw waveform, spectrogram, curve, moments and frames: a .png or .html of one file; of several an .html "
        "that leads to a page for each, in a folder of the same name; in DIR the pages and index.html",
    )
    output.add_argument(
        "--clips", type=Path, metavar="DIR", help="cut each moment as an mp4 with sound, 1 s to each side"
    )
    output.add_argument("--json", action="store_true", help="print JSON: a list with an object for each file")
    output.add_argument(
        "-q", "--quiet", action="store_true", help="print no table of each file, only what is wrong and the last line"
    )
    output.add_argument(
        "--score",
        type=Path,
        metavar="TRUTH",
        help="compare with what is known: Audible Kitchen's events.parquet, a csv of EPIC-SOUNDS, Audacity labels or a "
        "folder of them (onsets), a csv of EPIC-KITCHENS-100 (actions: how many have a moment within)",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="files at once (default: one per core)")
    parser.set_defaults(run=_run, wrong_usage=parser.error)


def _run(options: argparse.Namespace) -> int:
    from earmark.moments.writing import LABEL_SUFFIXES, TABLE_SUFFIXES, record

    out = None if options.out is None else options.out.suffix.lower()
    if out is not None and out not in TABLE_SUFFIXES + LABEL_SUFFIXES:
        options.wrong_usage(f"--out {options.out}: must end in one of {', '.join(TABLE_SUFFIXES + LABEL_SUFFIXES)}")
    page = None if options.plot is None else options.plot.suffix.lower()
    if page and page not in PAGES and not options.plot.is_dir():
        options.wrong_usage(f"--plot {options.plot}: must end in .png or .html, or be a folder")
    truth = None if options.score is None else read_truths(options.score)
    with scratch_folder() as scratch:
        paths, problems = inputs(options.files, _written(options), scratch)
        if page == ".png" and len(paths) > 1:
            options.wrong_usage(
                f"--plot {options.plot}: is one picture, but there are {len(paths)} files; give a folder or an .html"
            )
        for text in problems:
            complain(text)
        jobs = _jobs(paths, options, scratch)
        files = [_error_record(text) for text in problems]
        quiet = options.json or options.quiet
        failed = False
        examined = _results(jobs, options.workers, quiet=quiet)
        for job, (found, written, failure) in zip(jobs, examined, strict=True):
            files.append(found)
            if failure is not None:
                failed = True
                complain(failure.text)
                if failure.disk_is_full:
                    examined.close()  # hours of listening for files that can't be written
                    return FAILED
            _tell(found, job.search, table=not quiet)
            if out in LABEL_SUFFIXES and found.error is None:
                written = [*written, _write_labels(options.out, found, several=len(jobs) > 1)]
            _tell_written(written, options)
    _write_for_all(files, jobs, options)
    read = [found for found in files if found.error is None]
    scores = {} if truth is None else score(read, truth, options.score, stderr=options.json)
    if len(files) > 1 or options.quiet:
        print(_summary(files, options.detector), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        results = [record(found) | ({"scores": scores[found.path]} if found.path in scores else {}) for found in files]
        print_json(results)
    return DONE if read and not failed else FAILED


def _write_for_all(files: "Sequence[FileMoments]", jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Write the table of all files, and the page that leads to their pages."""
    from earmark.moments.onsets import DETECTOR_VERSION
    from earmark.moments.writing import TABLE_SUFFIXES, write_table

    read = [found for found in files if found.error is None]
    if read and options.out is not None and options.out.suffix.lower() in TABLE_SUFFIXES:
        parameters = {name: value for name, value in asdict(_search(options)).items() if name != "detector"}
        if options.detector == "earmark":
            parameters["detector_version"] = DETECTOR_VERSION
        write_table(options.out, files, detector=options.detector, parameters=parameters)
        _tell_written([str(options.out)], options)
    index = next((job.index for job in jobs if job.index is not None), None)
    if read and index is not None:
        from earmark.moments.page_index import write_index

        pages = {job.shown: job.plot for job in jobs if job.plot is not None and job.plot.exists()}
        write_index(index, files, pages, detector=options.detector)
        _tell_written([str(index)], options)


def _summary(files: "Sequence[FileMoments]", detector: str) -> str:
    read = [found for found in files if found.error is None]
    num_moments = sum(len(found.moments) for found in read)
    seconds = sum(found.duration_seconds for found in read)
    text = f"{counted(num_moments, 'moment')} in {counted(len(read), 'file')}, {clock(seconds)} in all"
    unread = f"; {len(files) - len(read)} could not be read" if len(files) > len(read) else ""
    return f"{text}, detector {detector}{unread}"


def _written(options: argparse.Namespace) -> set[Path]:
    return {path for path in (options.clips, options.plot) if path is not None}


def _tell_written(written: Sequence[str], options: argparse.Namespace) -> None:
    if not options.quiet:
        for text in written:
            shown = os.path.relpath(text) if text.startswith(f"{Path.cwd()}{os.sep}") else text
            print(f"wrote {visible(shown)}", file=sys.stderr, flush=True)


def _jobs(paths: Sequence[tuple[str, Path]], options: argparse.Namespace, scratch: Path) -> list[Job]:
    """Plan what is made of each file, and make the folders for it now, so that a failure doesn't come after an hour."""
    plot, index = options.plot, None
    if plot is not None:
        plot = plot.absolute()  # worker processes may run in another folder
        if plot.suffix.lower() not in PAGES:
            plot, index = plot, plot / f"{_INDEX_NAME}.html"
        elif len(paths) > 1:
            plot, index = plot.with_suffix(""), plot
    clips = None if options.clips is None else options.clips.absolute()
    out = None if options.out is None else options.out.absolute().parent
    for folder in (out, clips, None if plot is None else plot if index is not None else plot.parent):
        if folder is not None:
            require_writable(folder)
            remove_abandoned(folder)
    for folder in (clips, None if index is None else plot):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    progress = scratch / "progress"
    progress.write_bytes(bytes(8 * max(1, len(paths))))
    taken = {_INDEX_NAME} if index is not None else set()
    jobs = []
    for number, (shown, path) in enumerate(paths):
        name, count = path.stem, 1
        while name.lower() in taken:  # some file systems ignore case
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name.lower())
        page = plot if index is None else plot / f"{name}.html"
        jobs.append(Job(number, name, shown, path.absolute(), _search(options), page, index, clips, progress))
    return jobs


def _search(options: argparse.Namespace) -> Search:
    return Search(
        options.detector,
        options.min_score,
        options.min_distance,
        options.margin,
        options.max_per_minute,
        options.track,
    )


# --- all files ---


def _results(
    jobs: Sequence[Job], workers: int | None, *, quiet: bool
) -> "Generator[tuple[FileMoments, list[str], OutputFailure | None]]":
    """Yield what each job found, in their order; one that kills its process does not stop the others."""
    import joblib

    from earmark.moments.writing import FileMoments
    from earmark.preparation.isolation import Limits, in_limits
    from earmark.preparation.workers import WorkerDiedError, each_in_order

    if len(jobs) > 1:  # one that ends its process must not end the others
        calls = [joblib.delayed(in_limits)(Limits(), job.path, _or_error, job) for job in jobs]
    else:
        calls = [joblib.delayed(examine)(job) for job in jobs]
    results = each_in_order(calls, num_workers=workers or num_cpus(), isolate=len(jobs) > 1)
    with _progress_bar(jobs, workers, quiet):
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, WorkerDiedError):
                yield FileMoments(job.name, job.shown, error=f"{job.shown}: {result}"), [], None
            else:
                yield result


def _or_error(job: Job) -> "tuple[FileMoments, list[str], OutputFailure | None]":
    """Examine a file; too little memory for it is an error of this file."""
    from earmark.moments.writing import FileMoments

    try:
        return examine(job)
    except MemoryError:
        error = f"{job.shown}: reading it takes more memory than there is for one file"
        return FileMoments(job.name, job.shown, error=error), [], None


def _durations(jobs: Sequence[Job], workers: int | None) -> list[float]:
    """Return how many seconds each file lasts; 0 for one whose header can't be read, or ends the process that does."""
    import joblib

    from earmark.preparation.isolation import Limits, in_limits
    from earmark.preparation.workers import each_in_order

    if len(jobs) == 1:
        return [_duration(jobs[0].path)]
    limits = Limits(seconds=60.0)
    calls = [joblib.delayed(in_limits)(limits, job.path, _duration, job.path) for job in jobs]
    results = each_in_order(calls, num_workers=workers or num_cpus(), isolate=True)
    return [result if isinstance(result, float) else 0.0 for result in results]


def _duration(path: Path) -> float:
    from earmark.media import MediaError, media_info

    try:
        return media_info(path).duration_seconds
    except (MediaError, OSError, MemoryError):
        return 0.0


@contextlib.contextmanager
def _progress_bar(jobs: Sequence[Job], workers: int | None, quiet: bool) -> Iterator[None]:
    """Show on a terminal how much of all sound has been read; the workers write it to the jobs' progress file."""
    if quiet or not jobs or not sys.stderr.isatty():
        yield
        return
    import numpy as np
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    totals = np.array(_durations(jobs, workers))
    heard, stopped = np.memmap(jobs[0].progress, np.float64, "r"), Event()
    columns = (TextColumn("listening"), BarColumn(), TextColumn("{task.fields[done]} of {task.fields[all]} of sound"))
    whole = clock(totals.sum())
    with Progress(*columns, TimeRemainingColumn(), console=screen(stderr=True), transient=True) as bar:
        line = bar.add_task("", total=totals.sum() or None, done=clock(0), all=whole)

        def watch() -> None:
            while not stopped.wait(0.2):
                seconds = float(np.minimum(heard, totals).sum())
                bar.update(line, completed=seconds, done=clock(seconds))

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()


def _error_record(text: str) -> "FileMoments":
    from earmark.moments.writing import FileMoments

    return FileMoments("", text.partition(": ")[0], error=text)


def _tell(found: "FileMoments", search: Search, *, table: bool) -> None:
    if found.error is not None:
        complain(found.error)
        return
    for note in found.notes:
        complain(f"{found.path}: {note}")
    if not table:
        return
    from rich.table import Table
    from rich.text import Text

    console = screen()
    line = f"{counted(len(found.moments), 'moment')} in {clock(found.duration_seconds)}, detector {search.detector}"
    console.print(Text(f"{visible(found.path)}: {line}"), soft_wrap=True)
    if found.moments:
        columns = Table()
        for name in ("time", "score", "loudness, dB"):
            columns.add_column(name, justify="right")
        for moment in found.moments:
            columns.add_row(clock(moment.time_seconds), f"{moment.score:.2f}", f"{moment.loudness_db:.1f}")
        console.print(columns)


def _write_labels(out: Path, found: "FileMoments", *, several: bool) -> str:
    from earmark.moments.writing import write_labels

    path = out.with_name(f"{out.stem}-{found.name}{out.suffix}") if several else out
    write_labels(path, found)
    return str(path)
