"""A small kitchen with EPIC-SOUNDS' files, prepared: what the tasks of sounds and of anticipation are run on."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from earmark.clips.store import PreparedStore
from earmark.datasets import Kitchen
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.preparation import Transcoding, prepare

SIZE = KitchenSize(
    num_kitchens=3, videos_per_kitchen=3, video_seconds=40, width=96, height=64, fps=8, sample_rate=16000
)


@cache
def sounding_kitchen() -> tuple[Kitchen, PreparedStore]:
    """Return the kitchen and its store, made once for each process."""
    folder = Path(mkdtemp(prefix="sounding-kitchen-"))
    make_kitchen(folder / "kitchen", size=SIZE, progress=False)
    kitchen = Kitchen(folder / "kitchen")
    prepare(kitchen.videos(), folder / "store", transcoding=Transcoding(short_side=64), isolate=False, progress=False)
    return kitchen, PreparedStore(folder / "store")
