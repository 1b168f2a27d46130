"""From the checked configuration to the objects that the stations take: data set, store, encoders, transforms, device.

Beside the path of a sample: the commands call this; nothing below sees a configuration.
"""

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from earmark.cli.config import ConfigError
from earmark.cli.config_schema import AudioEncoder, Data, Environment, Logging, Prepare, VideoEncoder
from earmark.cli.terminal import num_cpus, say, screen
from earmark.wording import at_most, counted, duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric

    from earmark.clips.spectrograms import MelSpectrogram
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import LogMel
    from earmark.datasets import ActionRecord, DatasetRecords, VideoRecord
    from earmark.encoders import Encoder
    from earmark.preparation import MomentSearch, PrepareReport, Transcoding

__all__ = [
    "actions_of",
    "build_encoder",
    "build_fabric",
    "dataset_as_it_is",
    "describe_store",
    "open_dataset",
    "open_store",
    "prepare_records",
    "prepare_store",
    "prepare_workers",
    "require_clips_fit",
    "require_input_fits",
    "require_sound_fits",
    "run_dir",
    "say_empty_bands",
    "say_left_out",
    "store_of_files",
    "store_path",
    "usable_gpus",
    "videos_of",
]

MAX_PROBLEMS_SHOWN = 20


def run_dir(environment: Environment, logging: Logging, *, suffix: bool = True) -> Path:
    """Return the folder of a run, with or without its suffix."""
    return Path(environment.data_dir) / "outputs" / (logging.name + (logging.suffix if suffix else ""))


def base_path(data: Data, environment: Environment) -> Path:
    """Return the folder of the source videos.

    Raises:
        ConfigError: If it is not given and the data set is not a generated one.
    """
    if data.args.base_path is not None:
        return Path(data.args.base_path)
    if data.name != "kitchen":
        raise ConfigError(f"data.args.base_path: is missing; the {data.name} data set needs the folder of its videos")
    suffix = f"_seed{data.args.seed}" if data.args.seed else ""
    return Path(environment.data_dir) / "kitchen" / f"{data.args.preset}{suffix}"


def open_dataset(data: Data, environment: Environment) -> "DatasetRecords":
    """Open the data set; a kitchen that is not there yet is generated.

    Raises:
        ConfigError: If its folder is not given.
        earmark.datasets.DatasetError: If it is damaged.
    """
    from earmark.datasets import Ego4D, Folder

    path = base_path(data, environment)
    if data.name == "folder":
        written = Path(environment.data_dir)  # it may lie among the videos, or be their folder itself
        stores = [written / "prepared"] if data.store is None else [data.store]
        folder = Folder(path, exclude=[written, written / "outputs", *stores])
        say_left_out(folder.problems)
        return folder
    if data.name == "kitchen" and data.args.base_path is None and not (path / "events.parquet").exists():
        from earmark.kitchen import PRESETS, make_kitchen, seconds_to_make

        workers, size = num_cpus(), PRESETS[data.args.preset].size
        num_videos = size.num_kitchens * size.videos_per_kitchen
        num_missing = num_videos - len(list(path.glob("P*/videos/*.MP4")))  # others were made before a stop
        length = duration_text(num_videos * size.video_seconds)
        to_come = duration_text(seconds_to_make(data.args.preset, num_videos=num_missing, num_workers=workers))
        say(
            f"generating Audible Kitchen, preset {data.args.preset}, in {path} (once): {num_videos} videos, {length} "
            f"in all; about {to_come} on {counted(workers, 'core')}, then they are prepared"
        )
        make_kitchen(path, preset=data.args.preset, seed=data.args.seed, num_workers=workers)
    dataset = dataset_as_it_is(data, environment)
    if isinstance(dataset, Ego4D):
        for text in at_most(dataset.problems, MAX_PROBLEMS_SHOWN):
            say(text)
    return dataset


def dataset_as_it_is(data: Data, environment: Environment) -> "DatasetRecords":
    """Open a data set that is more than a folder of videos, without a word, and without generating one.

    Raises:
        ConfigError: If its folder is not given.
        earmark.datasets.DatasetError: If it is not there, or damaged.
    """
    from earmark.datasets import DATASETS, Ego4D, EpicKitchens, EpicKitchens55

    path, layout = base_path(data, environment), data.args.layout
    if data.name == "ego4d":
        return Ego4D(path, version=data.args.version, layout=layout)
    if data.name in ("epic_kitchens", "epic_kitchens_55"):
        if layout == "full_scale" or layout == "clips":  # written out: types are narrowed by it
            raise ConfigError(f"data.args.layout: {layout} is none of {data.name}")
        return (EpicKitchens if data.name == "epic_kitchens" else EpicKitchens55)(path, layout=layout)
    dataset: DatasetRecords = DATASETS[data.name](path)
    return dataset


def say_left_out(problems: "Sequence[str]") -> None:
    """Say what of a data set was left out, and why; beyond a number of lines, how many more."""
    for text in at_most(problems, MAX_PROBLEMS_SHOWN):
        say(f"left out: {text}")


def videos_of(dataset: "DatasetRecords") -> "list[VideoRecord]":
    """Return the videos of all splits, and say which rows of the data set's files were left out."""
    from earmark.datasets import Ego4D

    before = dataset.problems
    videos = dataset.videos()
    say_left_out([text for text in dataset.problems if text not in before])
    if isinstance(dataset, Ego4D):
        for text in at_most(dataset.remarks, MAX_PROBLEMS_SHOWN):
            say(text)
    return videos


def actions_of(dataset: "DatasetRecords", split: str) -> "list[ActionRecord]":
    """Return the annotated actions of a split, and say which rows of the data set's files were left out."""
    before = dataset.problems
    actions = dataset.actions(split)
    say_left_out([text for text in dataset.problems if text not in before])
    return actions


def store_path(data: Data, environment: Environment, prepare: Prepare) -> Path:
    """Return the folder of the prepared videos: the one given, or one named by all that its content depends on.

    Raises:
        ConfigError: If a URL is given: videos are prepared in a folder, and copied from there.
    """
    if data.store is not None:
        from earmark.clips.remote import is_url

        if is_url(data.store):
            raise ConfigError(f"data.store: {data.store} can be read, not written; prepare in a folder and copy that")
        return Path(data.store)
    content = {"base_path": str(base_path(data, environment).resolve()), **_prepare_parameters(prepare)}
    content |= {k: v for k, v in (("layout", data.args.layout), ("version", data.args.version)) if v is not None}
    if content["detector"] == "replai":  # a store prepared when there was no other is found again
        del content["detector"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Path(environment.data_dir) / "prepared" / f"{data.name}-{digest[:8]}"


def prepare_store(data: Data, environment: Environment, prepare: Prepare) -> "PrepareReport":
    """Prepare all videos of the data set; those done before are not done again.

    Raises:
        ConfigError: If the folder of the videos is not given.
        earmark.datasets.DatasetError: If the data set is damaged.
        earmark.preparation.PrepareError: If the store was made with other parameters.
    """
    return prepare_records(videos_of(open_dataset(data, environment)), store_path(data, environment, prepare), prepare)


def prepare_records(videos: "Sequence[VideoRecord]", root: Path, prepare: Prepare) -> "PrepareReport":
    """Prepare videos in a folder; those done before are not done again.

    Raises:
        earmark.preparation.PrepareError: If the store was made with other parameters.
    """
    from earmark.preparation import prepare as prepare_videos

    say(f"preparing {counted(len(videos), 'video')} in {root}")
    return prepare_videos(
        videos,
        root,
        part=_part(prepare),
        num_workers=prepare_workers(prepare),
        backend=prepare.backend,
        isolate=prepare.isolate,
        transcoding=_transcoding(prepare),
        search=_search(prepare),
    )


def store_of_files(paths: "Sequence[Path]", environment: Environment, prepare: Prepare) -> Path:
    """Return the folder for the prepared videos of some files: these, prepared in this way, and no others."""
    content = {"files": sorted(os.path.realpath(path) for path in paths), **_prepare_parameters(prepare)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()
    return Path(environment.data_dir) / "prepared" / f"files-{digest[:8]}"


def prepare_workers(prepare: Prepare) -> int:
    """Return how many processes prepare: as many as asked for, else one per core, of the cluster if there is one."""
    return prepare.workers or (num_cpus() if prepare.backend == "loky" else -1)


def _part(prepare: Prepare) -> tuple[int, int]:
    number, num_parts = (prepare.part or "1/1").split("/")
    return int(number), int(num_parts)


def open_store(data: Data, environment: Environment, prepare: Prepare) -> "PreparedStore":
    """Open the prepared videos of the data set, preparing those that were not before.

    Prepared videos are all that is needed: where their sources are gone, the store is used as it is.

    Raises:
        ConfigError: If ``data.store`` holds videos prepared otherwise than asked for.
        earmark.preparation.catalog.StoreError: If the store is damaged.
    """
    from earmark.clips.remote import is_url
    from earmark.clips.store import PreparedStore
    from earmark.datasets import DatasetError

    if data.store is not None and is_url(data.store):  # read, never written
        store = PreparedStore(data.store)
        _require_prepared_as_asked(store, data.store, prepare)
        return store
    root = store_path(data, environment, prepare)
    if not (root / "videos.parquet").exists():
        screen(stderr=True).print(prepare_store(data, environment, prepare).table())
        return PreparedStore(root)
    store = PreparedStore(root)
    _require_prepared_as_asked(store, str(root), prepare)
    try:
        videos = videos_of(open_dataset(data, environment))
    except (ConfigError, DatasetError) as error:
        say(f"{root} is used as it was prepared ({error})")
        return store
    known = {video.video_id for video in store.catalog}
    num_new = sum(video.video_id not in known for video in videos)
    if num_new:
        say(f"new since {root} was prepared: {counted(num_new, 'video')}")
        screen(stderr=True).print(prepare_store(data, environment, prepare).table())
        return PreparedStore(root)
    return store


def _require_prepared_as_asked(store: "PreparedStore", name: str, prepare: Prepare) -> None:
    """Raise if a store that was named by hand holds other videos than are asked for."""
    # Not among the parameters where all is kept, and the default track is taken.
    whole = {"around": None, "around_seconds": prepare.around_seconds, "audio_stream": None}
    wanted, held = whole | _prepare_parameters(prepare), whole | store.parameters
    differing = [key for key, value in wanted.items() if held.get(key, value) != value]
    if differing:
        there = " ".join(f"prepare.{key}={'null' if held[key] is None else held[key]}" for key in differing)
        here = " ".join(f"prepare.{key}={wanted[key]}" for key in differing)
        raise ConfigError(
            f"data.store: {name} was prepared with {there}, not with {here}; give what it was prepared with"
        )


def build_encoder(config: VideoEncoder | AudioEncoder, environment: Environment) -> "Encoder":
    """Build an encoder, with the weights of a file if one is named, or published ones if they are asked for.

    Raises:
        ConfigError: If the file is not there, a library is missing, or an option is wrong.
        earmark.encoders.weights.WeightsError: If the file does not fit.
    """
    from earmark.encoders import new_encoder
    from earmark.encoders.published import WEIGHTS_VARIABLE, find_weights
    from earmark.encoders.weights import load_encoder_weights

    kind: Literal["video", "audio"] = "video" if isinstance(config, VideoEncoder) else "audio"
    args = config.args
    options = {
        key: value
        for key, value in (("width", args.width), ("num_mels", args.num_mels), ("model", args.model))
        if value is not None
    }
    from_library = args.pretrained and args.model is not None and args.weights is None
    try:
        encoder = new_encoder(config.name, **options, **({"pretrained": True} if from_library else {}))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"backbone.{kind}: {error}") from error
    if from_library:
        say(f"{kind} encoder: weights of {args.model}")
    elif args.pretrained or args.weights is not None:
        folder = Path(environment.data_dir) / "weights"
        try:
            path = find_weights(config.name, given=args.weights, folder=folder)
        except FileNotFoundError as error:
            if args.weights is not None:
                raise ConfigError(f"backbone.{kind}.args.weights: {error}") from error
            raise ConfigError(
                f"backbone.{kind}.args.pretrained: {error}; then put it into {folder}, or name it with "
                f"backbone.{kind}.args.weights=FILE or the environment variable {WEIGHTS_VARIABLE}; "
                "pretrained=false starts from random weights"
            ) from error
        say(f"{kind} encoder: {load_encoder_weights(encoder, path, kind=kind)}")
    return encoder


def require_input_fits(encoder: "Encoder", kind: Literal["video", "audio"], shape: tuple[int, ...], why: str) -> None:
    """Run an encoder on one empty input, so that a size it cannot take is reported before videos are prepared.

    Args:
        encoder: The encoder; it is left as it was.
        kind: Which of the two.
        shape: Of a batch of one.
        why: The settings that make the shape.

    Raises:
        ConfigError: If it cannot take the input.
    """
    import torch

    was_training = encoder.training
    encoder.eval()  # batch norm must not learn from this
    try:
        with torch.no_grad():
            encoder(torch.zeros(shape))
    except (RuntimeError, ValueError, IndexError) as error:
        size = " x ".join(str(length) for length in shape[1:])
        reason = str(error).splitlines()[0]
        raise ConfigError(f"backbone.{kind}: cannot take an input of {size} ({why}): {reason}") from error
    finally:
        encoder.train(was_training)


def require_clips_fit(encoder: "Encoder", data: Data, crop_size: int) -> None:
    """Run a video encoder on one empty clip, as `require_input_fits`.

    Raises:
        ConfigError: If the encoder cannot take it.
    """
    shape = (1, 3, round(data.clip_seconds * data.clip_fps), crop_size, crop_size)
    clip = f"data.clip_seconds={data.clip_seconds:g}, data.clip_fps={data.clip_fps:g}"
    require_input_fits(encoder, "video", shape, f"{clip}, data_augm.crop_size={crop_size}")


def require_sound_fits(encoder: "Encoder", data: Data, sample_rate: int) -> None:
    """Run an audio encoder on the spectrogram of silence, as `require_input_fits`.

    Raises:
        ConfigError: If the encoder cannot take it.
    """
    from earmark.encoders import spectrogram_for

    transform = spectrogram_for(encoder, sample_rate=sample_rate)
    num_frames = transform.num_frames(round(data.audio_seconds * sample_rate))
    shape = (1, 1, num_frames, transform.num_mels)
    require_input_fits(encoder, "audio", shape, f"data.audio_seconds={data.audio_seconds:g}")
    say_empty_bands(transform)


def say_empty_bands(transform: "LogMel | MelSpectrogram") -> None:
    """Say how many bands of an encoder's spectrogram hold nothing, as the sound's rate is below that of training."""
    from earmark.clips.spectrograms import MelSpectrogram

    if isinstance(transform, MelSpectrogram) and transform.empty_bands:
        say(
            f"note: the audio encoder's spectrogram is made for sound of {transform.options.sample_rate} Hz; of its "
            f"{transform.num_mels} bands the highest {transform.empty_bands} are empty at {transform.sample_rate} Hz"
        )


def describe_store(store: "PreparedStore") -> str:
    """Return a line on how videos were prepared, and how many of them were enlarged or padded beyond their sources."""
    from earmark.moments.options import detector_title
    from earmark.preparation.catalog import stretched

    parameters = store.parameters
    lacking = stretched(store.catalog, fps=store.fps, sample_rate=store.sample_rate)
    lacking_text = "".join(
        f"; {what} than that in {len(video_ids)} of {len(store.videos)} sources" for what, video_ids in lacking.items()
    )
    around = f", only {store.around_seconds:g} s around each moment" if store.around_seconds is not None else ""
    return (
        f"prepared videos: {store.fps:g} frames per second of short side {parameters['short_side']}, sound at "
        f"{store.sample_rate} Hz, moments by the detector {detector_title(parameters)} in segments of "
        f"{parameters['segment_seconds']:g} s{around}{lacking_text}"
    )


def usable_gpus(environment: Environment) -> int:
    """Return how many GPUs torch can use on this machine.

    Raises:
        ConfigError: If a GPU is asked for and there is none.
    """
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if environment.accelerator == "cuda" and not num_gpus:
        raise ConfigError("environment.accelerator: cuda is asked for, but torch finds no GPU (see `earmark doctor`)")
    return num_gpus


def build_fabric(environment: Environment) -> "Fabric":
    """Start Lightning Fabric on one device, with a note where more were asked for: evaluation runs in one process.

    Raises:
        ConfigError: If a GPU is asked for and there is none, or torchrun started several processes.
    """
    from lightning_fabric import Fabric

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("started as one of several processes (WORLD_SIZE > 1): evaluation runs in one process only")
    num_gpus = usable_gpus(environment)
    accelerator = "cuda" if num_gpus and environment.ngpu and environment.accelerator != "cpu" else "cpu"
    if environment.ngpu > 1:
        used = "one GPU" if accelerator == "cuda" else "one process on the CPU"
        say(f"environment.ngpu={environment.ngpu}: this machine has {counted(num_gpus, 'usable GPU')}; {used} is used")
    fabric = Fabric(accelerator=accelerator, devices=1, precision="32-true")
    fabric.launch()
    return fabric


def _transcoding(prepare: Prepare) -> "Transcoding":
    from earmark.preparation import Transcoding

    return Transcoding(**{field.name: getattr(prepare, field.name) for field in fields(Transcoding)})


def _search(prepare: Prepare) -> "MomentSearch":
    from earmark.preparation import MomentSearch

    return MomentSearch(**{field.name: getattr(prepare, field.name) for field in fields(MomentSearch)})


def _prepare_parameters(prepare: Prepare) -> dict[str, Any]:
    """Return what the content of a store depends on."""
    from earmark.preparation import store_parameters

    return store_parameters(_transcoding(prepare), _search(prepare))
