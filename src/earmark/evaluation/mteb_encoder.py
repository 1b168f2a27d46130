"""A video encoder as the benchmark mteb takes it: `EPICKitchens100Clustering` and its other tasks on video alone.

Path of a sample: a video file of the benchmark's data set --frames at the encoder's own rate--> clips --transform-->
model inputs --encoder, mean over the clips--> the embedding that mteb clusters and scores.

mteb and what it brings are imported when an encoder is wrapped, not with this module (``pip install 'earmark[mteb]'``).
Videos are read by `earmark.media`, so torchcodec is not needed.
"""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from earmark.clips.transforms import VideoCrop
from earmark.console import new_console
from earmark.evaluation.features import encoder_fingerprint
from earmark.media import MediaError, media_info, read_frames

if TYPE_CHECKING:
    from mteb.models import ModelMeta

    from earmark.encoders import Encoder

__all__ = ["MtebEncoder"]


class MtebEncoder:
    """A video encoder that `mteb.evaluate` takes.

    Each video is shown as clips at the rate and of the length that the encoder was trained with; their places are
    spread evenly over it (one clip: its centre), and their features are averaged. A video shorter than a clip is shown
    from its start, its last picture staying. mteb itself gives all encoders the same number of frames of the whole
    video, so that the rate would change with its length.

    mteb keeps results by name and revision of a model and by the settings of its experiment: the revision is the
    fingerprint of the weights, and the settings are those of the clips, so no result stands for another encoder.

    Args:
        encoder: Put into evaluation mode and onto the device.
        name: Under which mteb keeps and shows the results, as ``organisation/model``.
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second.
        num_clips: Clips of each video.
        crop_size: Side of the square that is cut from the centre of each picture, whose short side is 8 / 7 of it.
        device: Where the encoder runs.
        training_datasets: Names of mteb's tasks whose data it was trained on, which mteb tells beside the result;
            None where that is not known. Of an encoder trained on EPIC-KITCHENS-100 these are
            ``EPICKitchens100Clustering`` and ``EPICKitchens100ClusteringMini``, with or without labels.

    Attributes:
        mteb_model_meta: What mteb asks of a model.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If there is no clip, or a clip has no frame.

    Example:
        >>> import mteb, earmark  # doctest: +SKIP
        >>> judged = MtebEncoder(earmark.load_encoder("video.safetensors"), name="me/replai")  # doctest: +SKIP
        >>> mteb.evaluate(judged, mteb.get_task("EPICKitchens100ClusteringMini"))  # doctest: +SKIP
    """

    mteb_model_meta: "ModelMeta"

    def __init__(
        self,
        encoder: "Encoder",
        *,
        name: str,
        clip_seconds: float = 0.5,
        clip_fps: float = 16.0,
        num_clips: int = 3,
        crop_size: int = 112,
        device: torch.device | str = "cpu",
        training_datasets: Collection[str] | None = None,
    ) -> None:
        if num_clips < 1 or clip_seconds <= 0 or clip_fps <= 0 or round(clip_seconds * clip_fps) < 1:
            raise ValueError(
                f"need clips of at least one frame, got {num_clips} of {clip_seconds:g} s at {clip_fps:g} frames per "
                "second"
            )
        self.encoder = encoder.to(device).eval()
        self.device = torch.device(device)
        self._view = _ClipView(
            clip_seconds=clip_seconds,
            clip_fps=clip_fps,
            num_clips=num_clips,
            transform=VideoCrop(crop_size=crop_size, random=False),
        )
        clips = {
            "clip_fps": clip_fps,
            "clip_seconds": clip_seconds,
            "crop_size": crop_size,
            "num_clips": num_clips,
        }
        self.mteb_model_meta = _model_meta(self.encoder, name=name, clips=clips, training_datasets=training_datasets)

    def encode(
        self,
        inputs: "DataLoader[Any]",
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        show_progress_bar: bool = True,
        **_: Any,
    ) -> npt.NDArray[np.float32]:
        """Return the embeddings of a task's videos; mteb calls it.

        Args:
            inputs: mteb's loader; of it the data set, the batch size and the number of workers are used.
            task_metadata: Of the task; its name stands in messages.
            hf_split: Split of the data set.
            hf_subset: Subset of the data set.
            prompt_type: Not used: videos have no prompts.
            show_progress_bar: Show one.

        Returns:
            float32 ``(num_videos, D)``, in the order of the data set.

        Raises:
            TypeError: If the data set has no column ``video`` of encoded videos.
            ValueError: If a video cannot be read (named by task, split and row), or features are not finite.
        """
        videos = _Videos(inputs.dataset, f"{task_metadata.name}, {hf_subset}/{hf_split}", self._view)
        batches = DataLoader(videos, batch_size=inputs.batch_size, num_workers=inputs.num_workers)
        shown = track(
            batches,
            f"embeddings: {task_metadata.name}",
            console=new_console(stderr=True),
            disable=not show_progress_bar,
        )
        embeddings = [self._embed(batch) for batch in shown]
        found = np.concatenate(embeddings) if embeddings else np.empty((0, self.encoder.output_dim), np.float32)
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            raise ValueError(f"{videos.name}: features of row {bad[0]} (and {len(bad) - 1} more) are not finite")
        return found

    @torch.inference_mode()
    def _embed(self, clips: Tensor) -> npt.NDArray[np.float32]:
        """Return the mean features (B, D) of the clips (B, clips, 3, T, H, W) of each video."""
        features = self.encoder(clips.flatten(0, 1).to(self.device))
        mean: npt.NDArray[np.float32] = features.float().view(*clips.shape[:2], -1).mean(dim=1).cpu().numpy()
        return mean

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine of each embedding of the one (N, D) with each of the other (M, D), as (N, M)."""
        from mteb.similarity_functions import cos_sim

        cosines: Tensor = cos_sim(embeddings1, embeddings2)
        return cosines

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine of each embedding of the one (N, D) with that of the same row of the other, as (N,)."""
        from mteb.similarity_functions import pairwise_cos_sim

        cosines: Tensor = pairwise_cos_sim(embeddings1, embeddings2)
        return cosines


class _ClipView:
    """How a video file becomes clips; see `MtebEncoder` for the arguments."""

    def __init__(self, *, clip_seconds: float, clip_fps: float, num_clips: int, transform: VideoCrop) -> None:
        self.clip_seconds = clip_seconds
        self.num_clips = num_clips
        self.transform = transform
        self.steps_seconds = np.arange(round(clip_seconds * clip_fps)) / clip_fps

    def read(self, path: Path) -> Tensor:
        """Return the clips of a file, float32 (clips, 3, T, crop_size, crop_size).

        Raises:
            earmark.media.MediaError: If it holds no picture that can be read.
        """
        info = media_info(path)
        if info.video is None:
            raise MediaError(f"{path}: {info.problem or 'there is no picture in it'}")
        length = info.video.duration_seconds
        duration = info.duration_seconds if length is None else info.video.start_seconds + length
        room = max(0.0, duration - self.clip_seconds)
        starts = room * (np.arange(self.num_clips) + 0.5) / self.num_clips
        times = starts[:, None] + self.steps_seconds
        pictures = read_frames(path, times.ravel(), short_side=self.transform.min_short_side)
        clips = torch.from_numpy(pictures).view(*times.shape, *pictures.shape[1:])
        inputs: Tensor = self.transform(clips, torch.zeros(self.num_clips, dtype=torch.int64))
        return inputs


class _Videos(Dataset[Tensor]):
    """The clips of each video of a task, row by row.

    Args:
        rows: A data set of Hugging Face with a column ``video``.
        name: Of task and split.
        view: Reads a file.

    Raises:
        TypeError: If there is no such column, or it holds anything but encoded videos.
    """

    def __init__(self, rows: Any, name: str, view: _ClipView) -> None:
        from datasets import Video

        held = getattr(rows, "features", {}).get("video")
        if not isinstance(held, Video):
            raise TypeError(
                f"{name}: needs a column 'video' of encoded videos, got "
                + (f"{held}" if held is not None else f"columns {sorted(getattr(rows, 'features', {}))}")
            )
        self._files = rows.select_columns(["video"]).cast_column("video", Video(decode=False))
        self.name = name
        self._view = view

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        held: Mapping[str, Any] = self._files[index]["video"]
        try:
            if held["bytes"] is None:
                return self._view.read(Path(held["path"]))
            # FFmpeg guesses what a file is by its name, too.
            with tempfile.NamedTemporaryFile(suffix=Path(held["path"] or "").suffix) as file:
                file.write(held["bytes"])
                file.flush()
                return self._view.read(Path(file.name))
        except MediaError as error:
            named = f" ({held['path']})" if held["path"] else ""
            raise ValueError(f"{self.name}, row {index}{named}: {error}") from error


def _model_meta(
    encoder: "Encoder", *, name: str, clips: Mapping[str, Any], training_datasets: Collection[str] | None
) -> "ModelMeta":
    """Return what mteb asks of a model; what is not known is None."""
    from mteb.models import ModelMeta

    values = [*encoder.parameters(), *encoder.buffers()]
    return ModelMeta(
        loader=None,
        name=name,
        revision=encoder_fingerprint(encoder)["encoder_weights"][:40],
        release_date=None,
        languages=None,
        n_parameters=sum(weight.numel() for weight in encoder.parameters()),
        memory_usage_mb=sum(value.numel() * value.element_size() for value in values) / 2**20,
        max_tokens=None,
        embed_dim=encoder.output_dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None if training_datasets is None else set(training_datasets),
        modalities=["video"],
        experiment_kwargs=dict(clips),
    )
