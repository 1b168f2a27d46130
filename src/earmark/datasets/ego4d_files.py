"""Files of an Ego4D download that are not read: listed nowhere, or there in another folder, too.

Nothing is opened here.
"""

from collections.abc import Sequence

from earmark.datasets.ego4d import Ego4D
from earmark.datasets.listing import media_named
from earmark.datasets.records import VIDEO_SUFFIXES, VideoRecord
from earmark.wording import counted

__all__ = ["files_not_read"]

MAX_NAMED = 3


def files_not_read(ego4d: Ego4D, videos: Sequence[VideoRecord]) -> tuple[str, ...]:
    """Return a line for each folder and reason for which video files in it are not read, with how many they are.

    Args:
        ego4d: The data set.
        videos: Its videos of all splits, as found.
    """
    read = {video.video_id: video.path for video in videos}
    lines = []
    for layout, folder in ego4d.places():
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:  # most of the places are not there
            continue
        kinds: dict[str, list[str]] = {}
        for path in media_named(folder, names, VIDEO_SUFFIXES):
            if layout != ego4d.layout:
                kind = "not read, since whole videos are" if layout == "clips" else "not read, since clips are"
            elif path.stem not in read:
                kind = "not listed in ego4d.json" if layout == "full_scale" else "of clips that no task lists"
            elif read[path.stem] != path:
                kind = "of videos that are read from another place"
            else:
                continue
            kinds.setdefault(kind, []).append(path.name)
        for kind, found in kinds.items():
            more = ", .." if len(found) > MAX_NAMED else ""
            lines.append(f"{folder}: {counted(len(found), 'file')} {kind}: {', '.join(found[:MAX_NAMED])}{more}")
    return tuple(lines)
