"""Sound to clip and clip to sound: all found where each moment has a direction of its own, chance where none has."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.evaluation import ProjectionHeads, Retrieval, evaluate_task
from earmark.evaluation.base import ClipOptions
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.retrieval import WAYS, WayRanks
from tests.helpers.made_store import SAMPLE_RATE, add_video, finish_store, sound_of

pytestmark = pytest.mark.usefixtures("one_thread")

TIMES = [1.3, 2.5, 4.0, 5.5, 6.8, 9.2]  # no two have a first frame of the same brightness


class Levels(nn.Module):
    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        return video.float().mean(dim=(2, 3, 4))


class FirstSample(nn.Module):
    def forward(self, audio: Tensor) -> Tensor:
        return audio[:, :1].float()


class NearestOf(nn.Module):
    """Features: a direction of its own for each moment of `TIMES`, told from what a clip or a sound shows first."""

    def __init__(self, shown: list[list[float]]) -> None:
        super().__init__()
        self.shown = torch.tensor(shown)  # (moments, ways to show it)

    def forward(self, inputs: Tensor) -> Tensor:
        distances = (inputs[:, :1, None] - self.shown).abs().amin(dim=2)
        return nn.functional.one_hot(distances.argmin(dim=1), len(TIMES)).float()


class Constant(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.ones(len(inputs), 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    root = tmp_path_factory.mktemp("retrieval")
    rows = [add_video(root, f"t{k}", split="train") for k in range(4)] + [add_video(root, "v", split="validation")]
    finish_store(root, rows, {row.video_id: TIMES for row in rows})
    return PreparedStore(root)


def orthogonal() -> dict[str, nn.Module]:
    levels = [
        [10.0 + 2 * (round((time + at) * 16) % 120) for at in (-0.6, 0.1)] for time in TIMES
    ]  # of the first frames of both clips
    sounds = [[float(sound_of(10 * SAMPLE_RATE)[round((time - 0.5) * SAMPLE_RATE)])] for time in TIMES]
    return {"video": NearestOf(levels), "audio": NearestOf(sounds)}


def judge(store: PreparedStore, **options: Any) -> dict[str, Any]:
    task = Retrieval.from_dataset(
        Folder(store.root),
        store,
        split="validation",
        clips=ClipOptions(audio_seconds=1.0),
        probe=ProbeOptions(held_out=0.5),
        **options,
    )
    encoders = orthogonal() if options.get("heads") is None else options["heads"].encoders
    judgement = evaluate_task(
        task,
        encoders,
        transforms={"video": Levels(), "audio": FirstSample()},
        baseline_encoders={"video": Constant(), "audio": Constant()},
    )
    result: dict[str, Any] = json.loads(judgement.result.to_json())
    return result


def test_orthogonal_features_are_found_and_a_constant_encoder_is_at_chance(store: PreparedStore) -> None:
    result = judge(store)
    assert [column["column"] for column in result["columns"]] == list(WAYS)
    for column in result["columns"]:
        assert (column["gallery_size"], column["num_test_videos"]) == (6, 1)
        for name, k in (("recall_at_1", 1), ("recall_at_5", 5)):
            score = column[name]
            assert score["encoder"]["value"] == 100
            assert score["chance"] == pytest.approx(100 * k / 6)
            for of in ("baseline", "majority"):
                assert score[of]["value"] == pytest.approx(100 * k / 6)
        ranks = column["median_rank"]
        assert (ranks["encoder"]["value"], ranks["baseline"]["value"], ranks["chance"]) == (1, 3.5, 3.5)
        assert column["of_clips"] == {"before R@1": 100, "before R@5": 100, "after R@1": 100, "after R@5": 100}
    assert result["headline"]["measure"] == "sound to clip, R@1"
    assert result["options"]["probe"]["kind"] == "canonical correlation"
    assert result["columns"][0]["chosen"][0]["held_out_moments"] == 12


def test_the_heads_of_a_checkpoint_stand_beside_the_map(store: PreparedStore) -> None:
    """Here they put clips where they were, and sounds at another moment's place."""
    shift = nn.Linear(6, 6, bias=False)
    shift.weight.data = torch.roll(torch.eye(6), 1, dims=0)
    heads = ProjectionHeads(orthogonal(), clip=nn.Identity(), sound=shift)
    result = judge(store, heads=heads)
    own = result["columns"][2:]
    assert [column["column"] for column in own] == [f"{way}, own heads" for way in WAYS]
    for column in own:
        assert column["recall_at_1"]["encoder"]["value"] == 0
        assert column["recall_at_1"]["baseline"] is None
    assert result["columns"][0]["recall_at_1"]["encoder"]["value"] == 100


def test_both_ways_rank_in_their_own_gallery() -> None:
    """A clip that is near every sound is found by all sounds, and finds one sound only."""
    rng = np.random.default_rng(0)
    clips, sounds = rng.normal(size=(7, 2, 4)), rng.normal(size=(7, 4))
    ranks = WayRanks.of_embeddings(clips, sounds)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    for moment in range(7):
        for clip in range(2):
            own = cosine(sounds[moment], clips[moment, clip])
            clips_above = sum(cosine(sounds[moment], clips[other, clip]) > own for other in range(7))
            sounds_above = sum(cosine(sounds[other], clips[moment, clip]) > own for other in range(7))
            place = moment + 7 * clip
            assert ranks.ranks(WAYS[0])[place] == 1 + clips_above
            assert ranks.ranks(WAYS[1])[place] == 1 + sounds_above


def test_a_gallery_of_one_and_missing_videos_are_refused(store: PreparedStore) -> None:
    train, one = MomentPairs(store, split="train"), MomentPairs(store, split="validation", max_moments=1)
    with pytest.raises(ValueError, match="at least two moments, the test videos have 1"):
        Retrieval(train, one, train_videos=train.video_ids).check()
    with pytest.raises(ValueError, match="need the video of each of 24 training moments"):
        Retrieval(train, train).check()
