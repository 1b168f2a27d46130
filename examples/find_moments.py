"""Print the moments at which something is heard to happen in a video.

    python examples/find_moments.py [VIDEO]

Without a video, half a minute of a kitchen is generated in a temporary folder. Needs no torch.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import earmark
from earmark.kitchen import PRESETS


def main(video: Path) -> None:
    """Print each moment's time, score and loudness, and how many there are per minute."""
    moments, info = earmark.moments_of_file(video)
    for moment in moments:
        print(f"{moment.time_seconds:8.2f} s  score {moment.score:5.1f}  {moment.loudness_db:6.1f} dB")
    per_minute = 60 * len(moments) / info.duration_seconds
    print(f"{video.name}: {len(moments)} moments in {info.duration_seconds:.1f} s, {per_minute:.1f} per minute")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            kitchen = Path(folder) / "kitchen"
            size = replace(PRESETS["demo"].size, num_kitchens=1, videos_per_kitchen=1)
            earmark.make_kitchen(kitchen, preset="demo", size=size, progress=False)
            main(min(kitchen.rglob("*.MP4")))
