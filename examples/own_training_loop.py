"""The two losses in a training loop of your own: plain torch, no configuration.

    python examples/own_training_loop.py [FOLDER]

FOLDER holds videos with sound; without one, a minute and a half of a kitchen is generated in a temporary folder.
"""

import sys
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import earmark
from earmark.datasets import Folder
from earmark.kitchen import PRESETS


def main(videos: Path, store: Path) -> None:
    """Prepare the videos, then train small encoders for a few epochs and print the losses of each."""
    torch.manual_seed(0)
    earmark.prepare(Folder(videos).videos(), store, progress=False)
    clips = earmark.MomentClips(earmark.PreparedStore(store))  # each item: the clips before and after, the sound
    loader = DataLoader(clips, batch_size=min(4, len(clips)), shuffle=True, collate_fn=earmark.collate, drop_last=True)

    crop, log_mel = earmark.VideoCrop(crop_size=64, min_short_side=64, max_short_side=80), earmark.LogMel()
    video_encoder, audio_encoder = earmark.R2Plus1D(10, width=4), earmark.SpecCNN9(width=4)
    video_head = earmark.projection_head(video_encoder.output_dim, 64, 32)
    change_head = earmark.projection_head(video_encoder.output_dim, 64, 32)
    audio_head = earmark.projection_head(audio_encoder.output_dim, 64, 32)
    modules = (video_encoder, audio_encoder, video_head, change_head, audio_head)
    optimizer = torch.optim.AdamW(chain.from_iterable(module.parameters() for module in modules), lr=1e-3)

    for epoch in range(4):
        clips.set_epoch(epoch)  # other moments and crops than in the epoch before
        for batch in loader:
            before, after = (
                video_encoder(crop(batch[name], batch["seed"], batch["video_size"], stream=stream))
                for stream, name in enumerate(("video_before", "video_after"))
            )
            audio = audio_head(audio_encoder(log_mel(batch["audio"])))
            contrastive_loss = earmark.audio_visual_correspondence_loss(
                video_before=video_head(before), video_after=video_head(after), audio=audio
            )
            state_change_loss = earmark.audible_state_change_loss(
                change_forward=change_head(after - before), change_backward=change_head(before - after), audio=audio
            )
            optimizer.zero_grad()
            (contrastive_loss + state_change_loss).backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: contrastive loss {contrastive_loss:.3f}, state change loss {state_change_loss:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            source = Path(sys.argv[1])
        else:
            kitchen = Path(folder) / "kitchen"
            size = replace(PRESETS["demo"].size, num_kitchens=1, videos_per_kitchen=3)
            earmark.make_kitchen(kitchen, preset="demo", size=size, progress=False)
            source = kitchen / "P01"
        main(source, Path(folder) / "store")
