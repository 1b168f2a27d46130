"""The wrapper for mteb, through mteb's own evaluation of its own task, on a made-up data set of the same form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("mteb", reason="needs earmark[mteb]")

import mteb

import datasets
from earmark.encoders import Encoder, R2Plus1D
from earmark.evaluation.mteb_encoder import MtebEncoder
from earmark.media import VideoWriter
from tests.helpers.media_clips import grey_ramp, write_clip

TASKS = ("EPICKitchens100Clustering", "EPICKitchens100ClusteringMini")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The task .* is currently in beta"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class MeanColour(Encoder):
    """Features are the mean red, green and blue of each frame: what was shown can be read off them."""

    def __init__(self, num_frames: int = 4) -> None:
        super().__init__()
        self.output_dim = 3 * num_frames
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.scale * x.mean(dim=(3, 4)).flatten(1)


def greys(embedding: "np.ndarray[Any, Any]") -> list[float]:
    """The grey value, 0 to 255, of each frame that an embedding of `MeanColour` tells of."""
    return [round(float(value) * 255, 1) for value in embedding.reshape(3, -1)[0] * 0.229 + 0.485]


def coloured(path: Path, colour: Sequence[int], *, num_frames: int = 20) -> Path:
    with VideoWriter(path, width=160, height=128, fps=10, sample_rate=16000) as writer:
        for _ in range(num_frames):
            writer.write_frame(np.full((128, 160, 3), colour, np.uint8))
    return path


def as_data_set(videos: Sequence[tuple[Path, str]], *, embedded: bool = True) -> Any:
    """A data set of Hugging Face of the form of the benchmark's: encoded videos with the names of their verbs."""
    rows = [
        {
            "video": {"bytes": path.read_bytes(), "path": path.name}
            if embedded
            else {"bytes": None, "path": str(path)},
            "label": label,
        }
        for path, label in videos
    ]
    features = datasets.Features({"video": datasets.Video(), "label": datasets.Value("string")})
    return datasets.Dataset.from_list(rows, features=features)


def embed(
    data_set: Any, judged: MtebEncoder, *, batch_size: int = 2, num_proc: int | None = None
) -> "np.ndarray[Any, Any]":
    """Call the encoder as a clustering task of mteb does."""
    from mteb._create_dataloaders import create_dataloader

    metadata = mteb.get_task(TASKS[1]).metadata
    loader = create_dataloader(
        data_set, task_metadata=metadata, input_column="video", batch_size=batch_size, num_proc=num_proc
    )
    return judged.encode(loader, task_metadata=metadata, hf_split="test", hf_subset="default")


@pytest.mark.parametrize("name", TASKS)
def test_the_benchmark_runs_and_tells_colours_apart(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    shades = {"wash": (200, 20, 20), "cut": (20, 200, 20), "open": (20, 20, 200)}
    videos = [
        (coloured(tmp_path / f"{verb}_{number}.mp4", [max(0, value - number) for value in colour]), verb)
        for verb, colour in shades.items()
        for number in range(4)
    ]
    (tmp_path / "data").mkdir()
    as_data_set(videos).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    task = mteb.get_task(name)
    monkeypatch.setitem(task.metadata.dataset, "path", str(tmp_path / "data"))
    monkeypatch.setitem(task.metadata.dataset, "revision", "made-up")
    judged = MtebEncoder(MeanColour(8), name="tests/mean-colour")
    results = mteb.evaluate(judged, [task], cache=None)
    (result,) = results.task_results
    (scores,) = result.scores["test"]
    assert scores["main_score"] == scores["v_measure"] == pytest.approx(1.0)
    assert sum(judged.encoder.batches) == 12 * 3


def test_clips_are_shown_at_the_rate_of_the_encoder_and_averaged(tmp_path: Path) -> None:
    write_clip(tmp_path / "ramp.mp4", frames=grey_ramp(32), fps=8, video_options={"qp": "0"})  # 4 s, grey 8 k
    data_set = as_data_set([(tmp_path / "ramp.mp4", "pour")])
    one = MtebEncoder(MeanColour(), name="t/m", clip_seconds=1.0, clip_fps=4.0, num_clips=1, crop_size=32)
    (embedding,) = embed(data_set, one)
    # the centre second, from 1.5 s on: frames 12, 14, 16, 18
    assert greys(embedding) == pytest.approx([96, 112, 128, 144], abs=3)
    two = MtebEncoder(MeanColour(), name="t/m", clip_seconds=1.0, clip_fps=4.0, num_clips=2, crop_size=32)
    (mean,) = embed(data_set, two)
    # from 0.75 s and from 2.25 s: frames 6, 8, 10, 12 and 18, 20, 22, 24
    assert greys(mean) == pytest.approx([96, 112, 128, 144], abs=3)
    assert not np.allclose(mean, embedding, atol=1e-6)


def test_a_video_shorter_than_a_clip_ends_with_its_last_picture(tmp_path: Path) -> None:
    write_clip(tmp_path / "short.mp4", frames=grey_ramp(4), fps=8, video_options={"qp": "0"})  # 0.5 s
    judged = MtebEncoder(MeanColour(), name="t/m", clip_seconds=1.0, clip_fps=4.0, num_clips=1, crop_size=32)
    (embedding,) = embed(as_data_set([(tmp_path / "short.mp4", "pour")]), judged)
    assert greys(embedding) == pytest.approx([0, 16, 24, 24], abs=3)


def test_order_and_numbers_depend_neither_on_batches_and_workers_nor_on_where_the_videos_lie(tmp_path: Path) -> None:
    videos = [(coloured(tmp_path / f"{grey}.mp4", (grey, grey, grey)), "take") for grey in (200, 40, 120)]
    judged = MtebEncoder(MeanColour(8), name="t/m")
    together = embed(as_data_set(videos), judged, batch_size=3)
    apart = embed(as_data_set(videos, embedded=False), judged, batch_size=1, num_proc=2)
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert [greys(row)[0] for row in together] == pytest.approx([200, 40, 120], abs=3)
    assert together.dtype == np.float32


def test_an_encoder_with_batch_norm_is_judged_as_it_is(tmp_path: Path) -> None:
    videos = [(coloured(tmp_path / f"{grey}.mp4", (grey, grey, grey)), "take") for grey in (200, 40)]
    encoder = R2Plus1D(10, width=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    embedding = embed(as_data_set(videos), MtebEncoder(encoder.train(), name="t/m"))
    assert embedding.shape == (2, encoder.output_dim)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_results_of_other_weights_and_other_clips_are_kept_apart() -> None:
    torch.manual_seed(0)
    one, other = (MtebEncoder(R2Plus1D(10, width=4), name="t/m").mteb_model_meta for _ in range(2))
    assert one.revision != other.revision
    encoder = R2Plus1D(10, width=4)
    few, many = (MtebEncoder(encoder, name="t/m", num_clips=clips).mteb_model_meta for clips in (1, 5))
    assert few.revision == many.revision
    assert few.experiment_name != many.experiment_name
    assert (few.modalities, few.embed_dim) == (["video"], encoder.output_dim)
    assert few.training_datasets is None
    assert MtebEncoder(encoder, name="t/m", training_datasets=TASKS).mteb_model_meta.training_datasets == set(TASKS)


def test_what_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"not a video")
    videos = [(coloured(tmp_path / "a.mp4", (9, 9, 9)), "take"), (damaged, "take")]
    with pytest.raises(ValueError, match=r"EPICKitchens100ClusteringMini, default/test, row 1 \(damaged.mp4\): "):
        embed(as_data_set(videos), MtebEncoder(MeanColour(8), name="t/m"))


def test_features_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    judged = MtebEncoder(MeanColour(8), name="t/m")
    judged.encoder.scale.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"features of row 0 .* are not finite"):
        embed(as_data_set([(coloured(tmp_path / "a.mp4", (9, 9, 9)), "take")]), judged)


def test_a_data_set_without_encoded_videos_is_refused() -> None:
    rows = datasets.Dataset.from_list([{"video": [1, 2], "label": "take"}])
    with pytest.raises(TypeError, match="needs a column 'video' of encoded videos, got List"):
        embed(rows, MtebEncoder(MeanColour(), name="t/m"))


@pytest.mark.parametrize("wrong", [{"num_clips": 0}, {"clip_seconds": 0.0}, {"clip_fps": 0.5, "clip_seconds": 0.5}])
def test_clips_of_no_frame_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need clips of at least one frame"):
        MtebEncoder(MeanColour(), name="t/m", **wrong)


def test_similarities_are_cosines() -> None:
    judged = MtebEncoder(MeanColour(), name="t/m")
    a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(judged.similarity(a, b), [[1, 0.5**0.5], [0, 0.5**0.5]], atol=1e-6)
    np.testing.assert_allclose(judged.similarity_pairwise(a, b), [1, 0.5**0.5], atol=1e-6)
