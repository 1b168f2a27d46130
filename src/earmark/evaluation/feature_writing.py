"""Features of whole videos, written as they come: hours long, stopped anywhere, on one machine or on many.

Path of a sample: places of videos --windows--> batches --transforms + encoders--> features --files--> search, probes.

Each video becomes a file (`earmark.evaluation.feature_files`). While it is computed, what is done lies in parts of a
few hundred rows below ``.parts``, from which the file is joined at its end. A run that was stopped goes on after the
last part. Batches never hold rows of two videos and begin at the same rows always, so what is written does not depend
on where a run was stopped, nor on what other videos there are.

``features.json`` in the folder says with which settings all of it was made, which videos are there, and which are not
and why. Files of other settings are not mixed with these.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from earmark.atomic import remove_abandoned, remove_abandoned_scratch
from earmark.clips.collation import collate
from earmark.clips.loading import load_batches
from earmark.clips.store import PreparedStore
from earmark.clips.windows import VideoWindows, WindowClips, WindowOptions, WindowPlan
from earmark.console import new_console
from earmark.evaluation.feature_files import (
    FeatureFileError,
    read_metadata,
    write_feature_file,
)
from earmark.evaluation.feature_index import PARTS_FOLDER, FeatureIndex, FeatureSettingsError
from earmark.evaluation.feature_parts import FeatureParts
from earmark.evaluation.feature_settings import (
    FeatureModel,
    FeatureWriting,
    check_settings,
    digest_of,
    feature_settings,
    video_settings,
)
from earmark.evaluation.features import (
    _BATCHES_UNDER_WAY,
    Modality,
    _channels_last,
    _in_eval_mode,
    _send_to_host,
)
from earmark.preparation.catalog import StoreError, prepared_name

__all__ = ["FeatureReport", "write_features"]

PART_ROWS = 512
_CLIP_NAMES = ("video", "video_before", "video_after")
_CHANGE = "video_change"

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """What was written.

    Attributes:
        folder: Where.
        written: By video id, how many rows its new file has.
        reused: By video id, how many rows its file has that was there already.
        resumed_rows: Rows that an interrupted run had computed.
        left_out: By video id, why it has no features.
        failed: By video id, what went wrong with it.
        places_left_out: By id, why a single moment or action has none.
        num_elsewhere: Videos of other parts that have no features yet.
    """

    folder: Path
    written: Mapping[str, int]
    reused: Mapping[str, int]
    resumed_rows: int
    left_out: Mapping[str, str]
    failed: Mapping[str, str]
    places_left_out: Mapping[str, str]
    num_elsewhere: int


@dataclass(eq=False)
class _Job:
    """A video that is worked on."""

    windows: VideoWindows
    metadata: dict[str, Any]
    target: Path
    parts: FeatureParts
    rows: dict[str, list[Rows]] = field(default_factory=dict)
    num_rows: int = 0  # of those
    error: str | None = None
    is_done: bool = False

    @property
    def video_id(self) -> str:
        return self.windows.video_id


def write_features(
    store: PreparedStore,
    plan: WindowPlan,
    options: WindowOptions,
    models: Mapping[Modality, FeatureModel],
    out: str | os.PathLike[str],
    *,
    writing: FeatureWriting | None = None,
) -> FeatureReport:
    """Write the features of every place of a plan, a file for each video.

    Run again after an interruption it goes on where it was, and what it writes is the same to the byte (on the CPU,
    with the same batch size). A video whose file is there, made of the same data by the same model, is not read again.
    One that can't be read, or has features that are not finite, is named and stops no other.

    Args:
        store: Prepared videos.
        plan: Their places, made by `earmark.clips.windows.plan_windows` with these options.
        options: What is shown of each place.
        models: The encoders by modality.
        out: Folder to write to, made if missing.
        writing: Format, batches, device; None for the defaults.

    Returns:
        What was written and what was not.

    Raises:
        FeatureSettingsError: If the folder holds features of another model or other settings, another process writes
            the same part of them, or bfloat16 is asked for on the CPU.
        FeatureFileError: If the format needs a library that is not installed.
        ValueError: If the frame rate does not divide the store's, or an encoder returns anything but (B, D).
        OSError: If a file cannot be written.

    Example:
        >>> from earmark.encoders import new_encoder
        >>> from earmark.clips.transforms import VideoCrop
        >>> from earmark.evaluation import FeatureModel
        >>> model = FeatureModel(new_encoder("avid_r2plus1d_18"), VideoCrop(random=False), "random weights")
        >>> write_features(store, plan, options, {"video": model}, "features")  # doctest: +SKIP
    """
    writing = writing or FeatureWriting()
    check_settings(models, writing)
    out = Path(out)
    settings = feature_settings(store, options, models, writing)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_ready(out / PARTS_FOLDER) / f"{writing.part[0]}-of-{writing.part[1]}.lock", is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FeatureSettingsError(f"{out}: another process writes this part of the features") from None
    try:
        remove_abandoned(out, recursive=True)
        remove_abandoned_scratch()
        return _Writer(store, plan, options, models, writing, out, settings).run()
    finally:
        lock.release()
        _remove_if_unused(out / PARTS_FOLDER)


class _Writer:
    def __init__(
        self,
        store: PreparedStore,
        plan: WindowPlan,
        options: WindowOptions,
        models: Mapping[Modality, FeatureModel],
        writing: FeatureWriting,
        out: Path,
        settings: dict[str, Any],
    ) -> None:
        self._store, self._plan, self._options, self._models = store, plan, options, models
        self._writing, self._out, self._settings = writing, out, settings
        self._index = FeatureIndex(out, settings)
        self._device = torch.device(writing.device)
        self._failed: dict[str, str] = {}
        self._written: dict[str, int] = {}

    def run(self) -> FeatureReport:
        self._index.claim()
        number, num_parts = self._writing.part
        mine = self._plan.videos[number - 1 :: num_parts]
        jobs, reused = [], {}
        for windows in mine:
            if windows.video_id.split("/")[0] == PARTS_FOLDER:
                self._failed[windows.video_id] = f"{PARTS_FOLDER} is where unfinished features lie"
                continue
            job = self._job(windows)
            there = _metadata_of(job.target)
            if there.get("digest") == job.metadata["digest"]:
                reused[job.video_id] = len(windows.times_seconds)
                job.parts.remove()
            elif there.get("source", job.metadata["source"]) != job.metadata["source"]:
                self._fail(job, f"{job.target} holds features of another video of this name, {there['source']}")
            else:
                jobs.append(job)
        resumed_rows = sum(job.parts.num_rows for job in jobs)
        try:
            self._compute(jobs)
        finally:  # what is done is listed, too, where an error or Ctrl-C ends the rest
            num_elsewhere = self._index.update(
                {windows.video_id: self._target(windows.video_id) for windows in mine},
                self._failed,
                plan=self._plan,
                made={**reused, **self._written},
            )
        return FeatureReport(
            self._out,
            self._written,
            reused,
            resumed_rows,
            self._plan.left_out,
            self._failed,
            self._plan.places_left_out,
            num_elsewhere,
        )

    def _target(self, video_id: str) -> Path:
        return self._out / f"{prepared_name(video_id).partition('/')[2]}.{self._writing.format}"

    def _job(self, windows: VideoWindows) -> _Job:
        """Say what a video's features depend on, and look what of them is there."""
        metadata = video_settings(self._store, windows, self._settings)
        # Batches of another size, or another device, give other last digits: parts of both are not joined.
        key = digest_of([metadata["digest"], self._writing.batch_size, self._device.type])
        folder = self._out / PARTS_FOLDER / prepared_name(windows.video_id).partition("/")[2]
        parts = FeatureParts(folder, key, num_rows=len(windows.times_seconds), batch_size=self._writing.batch_size)
        return _Job(windows, metadata, self._target(windows.video_id), parts)

    # --- computing ---

    def _compute(self, jobs: Sequence[_Job]) -> None:
        columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console, is_shown = new_console(stderr=True), self._writing.progress
        with Progress(*columns, console=console, disable=not is_shown or not jobs, transient=True) as bar:
            line = bar.add_task("", total=sum(len(job.windows.times_seconds) for job in jobs))
            bar.advance(line, sum(job.parts.num_rows for job in jobs))
            # not in inference mode: weights that are moved there can't be trained afterwards
            for model in self._models.values():
                model.encoder.to(self._device)
                model.transform.to(self._device)
            waiting = list(jobs)
            while waiting:
                for job in waiting:
                    if job.parts.is_complete:  # the last run was stopped before it joined them
                        self._finish(job)
                waiting = [job for job in waiting if not job.is_done]
                self._run(waiting, lambda num_rows: bar.advance(line, num_rows))
                waiting = [job for job in waiting if not job.is_done and job.error is None]

    @torch.inference_mode()
    def _run(self, jobs: Sequence[_Job], advance: Any) -> None:
        """Compute features of videos, one after the other, until all are done or one fails."""
        if not jobs:
            return
        modalities: list[Modality] = list(self._models)
        clips = WindowClips(self._store, [job.windows for job in jobs], self._options, modalities=modalities)
        todo = list(self._batches(jobs))
        keys = ([(int(clips.first_items[place]) + row, 0) for row in rows] for place, rows in todo)
        loaded = load_batches(
            clips, keys, collate_fn=collate, num_workers=self._writing.num_workers, device=self._device
        )
        under_way: deque[tuple[_Job, dict[str, tuple[Tensor, Any]]]] = deque()
        with closing(loaded), _computing(self._models, self._device):
            for place, rows in todo:
                job = jobs[place]
                try:
                    batch = next(loaded)
                except (StoreError, OSError) as error:
                    self._fail(job, str(error))
                if job.error is None:
                    under_way.append((job, self._features(batch)))
                    advance(len(rows))
                while under_way and (len(under_way) > _BATCHES_UNDER_WAY or _has_arrived(under_way[0][1])):
                    self._take(*under_way.popleft())
                if job.error is not None:
                    break
            while under_way:
                self._take(*under_way.popleft())

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[tuple[int, range]]:
        """Yield which video, by its place among them, and which of its rows, for each batch."""
        size = self._writing.batch_size
        for place, job in enumerate(jobs):
            number = len(job.windows.times_seconds)
            for first in range(job.parts.num_rows, number, size):
                yield place, range(first, min(first + size, number))

    def _features(self, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Any]]:
        """Compute the features of a batch and begin to copy them to the host."""
        found = {}
        for name in (name for name in (*_CLIP_NAMES, "audio") if name in batch):
            model = self._models["audio" if name == "audio" else "video"]
            if name == "audio":
                inputs = model.transform(batch[name])
            else:
                inputs = model.transform(batch[name], batch["seed"], batch["video_size"])
            with torch.autocast(self._device.type, torch.bfloat16) if self._writing.bfloat16 else nullcontext():
                output = model.encoder(inputs)
            if output.ndim != 2:
                raise ValueError(f"an encoder must return features (B, D), got shape {tuple(output.shape)}")
            found[name] = _send_to_host(output)
        return found

    def _take(self, job: _Job, arriving: Mapping[str, tuple[Tensor, Any]]) -> None:
        """Keep the features of a batch, in a part when there are enough, in the file when the video is through."""
        if job.error is not None:
            return
        for name, (rows, arrival) in arriving.items():
            if arrival is not None:
                arrival.synchronize()
            found = rows.numpy()
            bad = ~np.isfinite(found).all(axis=1)
            if bad.any():
                row = job.parts.num_rows + job.num_rows + int(bad.argmax())
                self._fail(job, f"features of {name} at {job.windows.times_seconds[row]:.3f} s are not finite")
                return
            job.rows.setdefault(name, []).append(found)
        job.num_rows += len(found)
        is_last = job.parts.num_rows + job.num_rows == len(job.windows.times_seconds)
        if is_last or job.num_rows >= PART_ROWS:
            job.parts.add({name: np.concatenate(rows) for name, rows in job.rows.items()})
            job.rows, job.num_rows = {}, 0
        if is_last:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        """Join a video's parts into its file."""
        dims = job.parts.dims
        if "video_before" in dims:
            dims = {**dims, _CHANGE: dims["video_before"]}
        dims = {name: dims[name] for name in (*_CLIP_NAMES, _CHANGE, "audio") if name in dims}

        def blocks(name: str) -> Iterator[Rows]:
            if name != _CHANGE:
                yield from job.parts.blocks(name)
                return
            for after, before in zip(job.parts.blocks("video_after"), job.parts.blocks("video_before"), strict=True):
                yield after - before

        columns = {**_spans(job.windows, self._options), **job.windows.columns}
        metadata = {**job.metadata, "dims": dims}
        write_feature_file(job.target, metadata=metadata, columns=columns, dims=dims, blocks=blocks)
        job.parts.remove()
        job.is_done = True
        self._written[job.video_id] = len(job.windows.times_seconds)

    def _fail(self, job: _Job, reason: str) -> None:
        if job.error is None:
            job.error = self._failed[job.video_id] = reason
            job.parts.remove()


def _spans(windows: VideoWindows, options: WindowOptions) -> dict[str, npt.NDArray[np.float64]]:
    """Return where what each row is about starts and ends."""
    start, margin = windows.times_seconds, options.window_seconds
    if options.of == "moments":
        margin += options.gap_seconds or 0.0
        return {"start_seconds": start - margin, "end_seconds": start + margin}
    return {"start_seconds": start, "end_seconds": start + margin}


def _metadata_of(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; nothing where there is none, or a damaged one, which is made anew."""
    try:
        return read_metadata(path)
    except FeatureFileError:
        return {}


@contextmanager
def _computing(models: Mapping[Modality, FeatureModel], device: torch.device) -> Iterator[None]:
    """Have encoders in evaluation mode, on a GPU in the layout that its kernels are made for."""
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(_in_eval_mode(model.encoder))
            if device.type == "cuda":
                stack.enter_context(_channels_last(model.encoder))
        yield


def _has_arrived(arriving: Mapping[str, tuple[Tensor, Any]]) -> bool:
    return all(arrival is None or arrival.query() for _, arrival in arriving.values())


def _ready(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove_if_unused(folder: Path) -> None:
    """Remove the folder of parts unless it holds parts, or another process works there."""
    with ExitStack() as held, suppress(Timeout, FileNotFoundError):
        if any(path.is_dir() for path in folder.iterdir()):
            return
        for path in sorted(folder.glob("*.lock")):
            held.enter_context(FileLock(path, is_singleton=False).acquire(timeout=0))
        shutil.rmtree(folder, ignore_errors=True)
