"""Features of clips of your own videos: one vector for each time span, and which two are most alike.

    python examples/features_of_clips.py [FOLDER [CHECKPOINT]]

FOLDER holds videos; without one, a minute of a kitchen is generated in a temporary folder. CHECKPOINT is any file that
`earmark.load_encoder` reads; without one the encoder has random weights, which shows the shapes and little else.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import earmark
from earmark.datasets import ActionRecord, Folder
from earmark.kitchen import PRESETS


def main(videos: Path, store: Path, checkpoint: Path | None) -> None:
    """Prepare the videos, cut each into spans of 5 seconds and print what the features say of them."""
    earmark.prepare(Folder(videos).videos(), store, progress=False)
    prepared = earmark.PreparedStore(store)
    spans = [
        ActionRecord(f"{video_id} {start}-{start + 5} s", video_id, start, start + 5, participant_id="", labels={})
        for video_id, video in prepared.videos.items()
        for start in range(0, int(video.duration_seconds) - 4, 5)
    ]
    clips = earmark.ActionClips(prepared, spans, num_clips=2)
    encoder = earmark.R2Plus1D(10, width=8) if checkpoint is None else earmark.load_encoder(checkpoint)
    crop = earmark.VideoCrop(crop_size=112, random=False)
    features = earmark.extract_features(encoder, clips, transform=crop).mean(axis=1)  # (num_spans, D)

    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T - 2 * np.eye(len(unit))
    first, second = np.unravel_index(similarity.argmax(), similarity.shape)
    print(f"{features.shape[0]} spans, {features.shape[1]} features each")
    print(f"most alike: {spans[first].action_id} and {spans[second].action_id}: {similarity[first, second]:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            source = Path(sys.argv[1])
        else:
            kitchen = Path(folder) / "kitchen"
            size = replace(PRESETS["demo"].size, num_kitchens=1, videos_per_kitchen=2)
            earmark.make_kitchen(kitchen, preset="demo", size=size, progress=False)
            source = kitchen / "P01"
        main(source, Path(folder) / "store", Path(sys.argv[2]) if len(sys.argv) > 2 else None)
