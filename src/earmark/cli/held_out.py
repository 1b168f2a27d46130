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
    of a video are held out with it; of Ego4D, what any of its tasks holds out. Annotations are enough: the videos may
    be gone. Where the annotations are gone, too, what was written then is all that is known.

    Raises:
        ConfigError: Naming the videos.
        earmark.datasets.DatasetError: If an annotation file is damaged, so that it is not known what it holds out.
    """
    from earmark.datasets import DatasetError, Ego4D, EpicKitchens, parent_of

    if config.data.split != "train" or config.data.name == "folder":  # which holds nothing out
        return
    try:
        dataset = dataset_as_it_is(config.data, config.environment)
    except (ConfigError, DatasetError):
        return
    held_out = dataset.held_out() if isinstance(dataset, Ego4D | EpicKitchens) else {}
    whole = (lambda name: name) if isinstance(dataset, Ego4D) else parent_of
    trained_on = [video_id for video_id, video in store.videos.items() if video.split == "train"]
    wrong = [f"{name} ({held_out[whole(name)]})" for name in trained_on if whole(name) in held_out]
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
