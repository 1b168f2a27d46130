"""Whether a run sees videos that are held out for validation or test.

Beside the path of a sample: `earmark.cli.pretrain` asks before it trains.
"""

from typing import TYPE_CHECKING

from earmark.cli.build import dataset_as_it_is
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import PretrainConfig
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.dataset import MomentClips
    from earmark.clips.store import PreparedStore

__all__ = ["held_out_videos_seen", "require_only_training_videos"]

MAX_VIDEOS_NAMED = 5


def require_only_training_videos(config: PretrainConfig, store: "PreparedStore") -> None:
    """Raise if a video that would be trained on is held out for validation or test by the data set as it is now.

    The prepared videos keep the split that they had when they were prepared; the annotations may be others today. Cuts
    of a video are held out with it. Where the data set is gone, what was written then is all that is known.

    Raises:
        ConfigError: Naming the videos.
    """
    from earmark.datasets import DatasetError, parent_of

    if config.data.split != "train" or config.data.name == "folder":  # which holds nothing out
        return
    try:
        videos = dataset_as_it_is(config.data, config.environment).videos()
    except (ConfigError, DatasetError):
        return
    held_out = {parent_of(video.video_id): video.split for video in videos if video.split not in ("train", "all")}
    trained_on = [video_id for video_id, video in store.videos.items() if video.split == "train"]
    wrong = [f"{name} ({held_out[parent_of(name)]})" for name in trained_on if parent_of(name) in held_out]
    if wrong:
        more = f" and {len(wrong) - MAX_VIDEOS_NAMED} more" if len(wrong) > MAX_VIDEOS_NAMED else ""
        raise ConfigError(
            f"data.split: {store.root} holds {counted(len(wrong), 'training video')} that the data set holds out: "
            f"{', '.join(wrong[:MAX_VIDEOS_NAMED])}{more}; prepare them anew in another data.store, or train on "
            "everything with data.split=all"
        )


def held_out_videos_seen(clips: "MomentClips", store: "PreparedStore") -> list[str]:
    """Return a line of caution if a run sees videos that are held out for validation or test; none if it does not."""
    splits = [store.videos[video_id].split for video_id in clips.video_ids]
    counts = [
        f"{counted(splits.count(split), 'video')} of split {split}" for split in sorted({*splits} - {"train", "all"})
    ]
    if not counts:
        return []
    return [f"caution: this run sees {' and '.join(counts)}: what is measured on them later is not of unseen videos"]
