"""Ego4D's object state changes: does one happen in a clip of 8 s (OSCC), and in which frame is its point of no return?

Path of a sample: annotated clips --16 places--> --features--> two heads --accuracy, error in seconds--> result.

The answer about the point of no return is one of the places that were really shown, and its error is measured from
where that is (Grauman et al., "Ego4D", CVPR 2022; judged so in RepLAI, arXiv 2209.13583).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from earmark.clips.state_change_clips import StateChangeClips, View
from earmark.clips.state_change_parts import NUM_KEYFRAMES, ChangePart, drawn_part, whole_clip
from earmark.datasets import parents_in
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Setting, Task
from earmark.evaluation.ego4d_submissions import write_keyframe_submission, write_state_change_submission
from earmark.evaluation.features import LabelledClips, Modality, extract_features
from earmark.evaluation.place_probe import fit_place_probe
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import fit_probe
from earmark.evaluation.results import TaskResult
from earmark.evaluation.state_change_results import (
    KeyframeResult,
    StateChangeAnswers,
    StateChangeResult,
    measure_keyframes,
    measure_state_changes,
)
from earmark.evaluation.submission_files import SupervisionLevels
from earmark.evaluation.untrained_keyframes import SoundGuesses, along_part, peak_of_change, sound_guesses
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.ego4d_state_changes import StateChangeRecord
    from earmark.datasets.records import DatasetRecords

__all__ = ["StateChange", "StateChangeOptions", "state_change_records"]

NUM_CLASSES = {"state_change": 2, "keyframe": NUM_KEYFRAMES}
CLASS_NAMES = {
    "state_change": ("no change", "change"),
    "keyframe": tuple(f"place {place + 1} of {NUM_KEYFRAMES}" for place in range(NUM_KEYFRAMES)),
}


@dataclass(frozen=True, slots=True)
class StateChangeOptions:
    """What is seen of a clip of 8 s.

    Attributes:
        view: ``spread`` shows 16 frames as one clip, as in the paper; ``windows`` shows 16 clips as short and as dense
            as pretraining's, one after another.
        train_parts: Parts of 5 to 8 s that are drawn of each training clip, samples of their own; 0 shows it whole.
        gap_seconds: Of the change of features, from what is before to the time that is judged, and on to what is after.
    """

    view: View = "spread"
    train_parts: int = 4
    gap_seconds: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what nothing can be seen with.

        Raises:
            ValueError: Naming the option.
        """
        if self.view not in ("spread", "windows"):
            raise ValueError(f"view must be spread or windows, got {self.view!r}")
        if self.train_parts < 0:
            raise ValueError(f"train_parts must be 0 or more, got {self.train_parts}")
        if not self.gap_seconds >= 0:
            raise ValueError(f"gap_seconds must be 0 or more, got {self.gap_seconds}")


@dataclass(frozen=True)
class StateChange(Task[StateChangeAnswers, StateChangeResult | KeyframeResult]):
    """The task: two heads on the features of a clip, of whether a state changes and of where.

    Attributes:
        train_clips: Parts of the training clips, labelled ``state_change`` and ``keyframe``.
        test_clips: The test clips, whole.
        test_parts: What these show, in their order.
        train_videos: Video of each training part.
        test_videos: Video of each test clip; None takes clips as independent.
        all_records: All clips of the test split, those that cannot be seen too, in the order of the annotations.
        probe: How the heads are trained.
        seeing: What is seen of a clip.
        along_clips: Short clips along each test clip, whose features are compared; None looks for no change.
        sound: What the moments say of the test clips; None where they are not known.
        records: How many clips were used, and which were not and why.
        modalities: What of a clip is looked at.
        clip_seconds: Length of a short clip.
        num_train_records: Training clips, and those of them with a change.
    """

    name: ClassVar[str] = "oscc_pnr"
    title: ClassVar[str] = "Object state change and point of no return, frozen features, % and s [95 % interval]"
    sample: ClassVar[str] = "clip"

    train_clips: LabelledClips
    test_clips: LabelledClips
    test_parts: Sequence[ChangePart]
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    all_records: Sequence["StateChangeRecord"] = ()
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    seeing: StateChangeOptions = field(default_factory=StateChangeOptions)
    along_clips: StateChangeClips | None = None
    sound: SoundGuesses | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)
    clip_seconds: float = 0.5
    num_train_records: tuple[int, int] = (0, 0)

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """Names of the answers of both heads."""
        return CLASS_NAMES

    @property
    def is_labelled(self) -> bool:
        """Whether the test clips have labels; those of the challenges are held back."""
        return bool(self.test_clips.labels)

    @property
    def needs_tokens(self) -> bool:
        """Whether the heads take feature maps before the pool, as the attentive ones do."""
        return self.probe.kind == "attentive"

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
        seeing: StateChangeOptions | None = None,
    ) -> Self:
        """Cut the parts of Ego4D's clips; see `Task.from_dataset`.

        Args:
            dataset: Ego4D's records.
            store: Its prepared videos.
            split: Split to judge on.
            clips: Which short clips, and which sound: that around their middle, or around the middle of the part.
            probe: How the heads are trained.
            seeing: What is seen of a clip; None for the defaults.

        Raises:
            ValueError: If the data set has no state changes, no clip is usable, or only clips without a change are.
        """
        seeing = seeing or StateChangeOptions()
        records = {part: state_change_records(dataset, part) for part in ("train", split)}
        parts_of = cls.parts_of(records["train"], seeing, training=True)
        train = cls._cut(store, parts_of, clips, seeing)
        test = cls._cut(store, cls.parts_of(records[split], seeing, training=False), clips, seeing)
        if train.labels and train.labels["keyframe"].max() < 0:
            raise ValueError(f"{store.root}: no training clip shows a state change: no point of no return is learned")
        used = {part.record.unique_id: part.record for part in train.parts}
        parent = parents_in(dataset)  # clips of one video are one in intervals, and held out together
        left_out = tuple(dict(train.left_out).items())  # a clip once, and not each of its parts
        return cls(
            train_clips=train,
            test_clips=test,
            test_parts=test.parts,
            train_videos=[parent(part.record.video_id) for part in train.parts],
            test_videos=[parent(part.record.video_id) for part in test.parts],
            all_records=records[split],
            probe=probe,
            seeing=seeing,
            along_clips=_along(store, test.parts, clips) if "video" in clips.modalities else None,
            sound=sound_guesses(store, test.parts),
            records=(
                RecordCount("train", len(used), left_out),
                RecordCount(split, len(test.parts), tuple(test.left_out)),
            ),
            modalities=clips.modalities,
            clip_seconds=clips.clip_seconds,
            num_train_records=(len(used), sum(record.state_change is True for record in used.values())),
        )

    @classmethod
    def parts_of(
        cls, records: Sequence["StateChangeRecord"], seeing: StateChangeOptions, *, training: bool
    ) -> list[ChangePart]:
        """Return what is seen of clips: in training several drawn parts of each, in testing all of it."""
        if not training or seeing.train_parts == 0:
            return [whole_clip(record) for record in records]
        return [drawn_part(record, seed=0, number=number) for record in records for number in range(seeing.train_parts)]

    @classmethod
    def _cut(
        cls, store: "PreparedStore", parts: Sequence[ChangePart], clips: ClipOptions, seeing: StateChangeOptions
    ) -> StateChangeClips:
        return StateChangeClips(
            store,
            parts,
            view=seeing.view,
            clip_seconds=clips.clip_seconds,
            clip_fps=clips.clip_fps,
            audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
            pictures="video" in clips.modalities,
        )

    def check(self) -> None:
        """Refuse labels, clips and heads that do not fit together."""
        for what, clips in (
            ("training", self.train_clips),
            *((("test", self.test_clips),) if self.is_labelled else ()),
        ):
            for column, number in NUM_CLASSES.items():
                labels = clips.labels.get(column)
                if labels is None:
                    raise ValueError(f"{what} clips have no label column {column!r}; there are {sorted(clips.labels)}")
                if not -1 <= labels.min() <= labels.max() < number:
                    raise ValueError(
                        f"{what} labels of {column!r} reach from {labels.min()} to {labels.max()}, need [-1, {number})"
                    )
        if self.is_labelled and not any(part.record.pnr_frame is not None for part in self.test_parts):
            raise ValueError("no test clip shows a state change: there is no point of no return to be found")
        if len(self.test_parts) != int(self.test_clips.action_of_item.max()) + 1:
            raise ValueError(f"need one part for each test clip, got {len(self.test_parts)}")
        if self.seeing.view == "windows" and self.probe.kind == "knn":
            raise ValueError(
                "clips that are seen through windows have no nearest neighbours, whose features would be compared "
                "without their order: take a linear or an attentive probe, or see them as spread frames"
            )

    def answer(
        self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str
    ) -> list[StateChangeAnswers]:
        """Train the heads with each seed, and find where the features change most."""
        answers = super().answer(encoders, setting, label=label)
        peaks = self.change_peaks(encoders, setting, label=label)
        return [dataclasses.replace(answer, change_seconds=peaks) for answer in answers]

    def change_peaks(
        self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str
    ) -> npt.NDArray[np.float64] | None:
        """Return where the features of each test clip change most, in seconds of its file; None if not looked for."""
        if self.along_clips is None or "video" not in encoders:
            return None
        features = extract_features(
            encoders["video"],
            self.along_clips,
            transform=setting.transforms["video"],
            options=setting.features,
            device=setting.device,
            seed=setting.seed,
            label=f"features: {label}, along the test {self.sample}s",
        )
        middles = np.array([part.place_seconds for part in self.along_clips.parts])
        return peak_of_change(features, middles, apart_seconds=self.clip_seconds + 2 * self.seeing.gap_seconds)

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> StateChangeAnswers:
        """Train both heads: of windows by `fit_place_probe`, else as two label columns of `fit_probe`."""
        if self.seeing.view == "windows" and self.probe.kind == "linear":
            answers = fit_place_probe(
                train_features,
                self.train_clips.labels,
                test_features,
                train_videos=self.train_videos,
                options=self.probe,
                seed=seed,
                device=device,
            )
        else:
            # tokens of a feature map do not say when they are, and that is what is asked
            attentive = self.probe.kind == "attentive"
            answers = fit_probe(
                train_features,
                self.train_clips.labels,
                test_features,
                num_classes=NUM_CLASSES,
                train_videos=self.train_videos,
                options=dataclasses.replace(self.probe, token_places=attentive),
                seed=seed,
                device=device,
            )
        return StateChangeAnswers(answers.scores, answers.chosen)

    def measure(self, answers: Sequence[Answers[StateChangeAnswers]]) -> tuple[StateChangeResult | KeyframeResult, ...]:
        """Return the accuracy of state changes, and the error of the points of no return."""
        ours = [answer.encoder for answer in answers]
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        videos = None if self.test_videos is None else np.array(self.test_videos)
        state = measure_state_changes(
            ours,
            theirs,
            train_labels=self.train_clips.labels["state_change"],
            num_train_clips=self.num_train_records[0],
            test_labels=self.test_clips.labels["state_change"],
            videos=videos,
        )
        keyframes = measure_keyframes(
            ours,
            theirs,
            parts=self.test_parts,
            num_train_clips=self.num_train_records[1],
            videos=videos,
            guesses=self.sound,
        )
        return state, keyframes

    def options(self) -> dict[str, Any]:
        """Return the options of the heads, and what is seen of a clip."""
        return {"probe": dataclasses.asdict(self.probe), "seeing": dataclasses.asdict(self.seeing)}

    def also_measured(self, result: TaskResult[StateChangeResult | KeyframeResult]) -> tuple[str, ...]:
        """Return what sound alone gives, beside the rows of the strongest moment."""
        sounds = [column.sound for column in result.columns if isinstance(column, KeyframeResult)]
        return tuple(line for sound in sounds if sound is not None for line in sound.lines())

    def table(self, result: TaskResult[StateChangeResult | KeyframeResult]) -> Table:
        """Return the table, with the notes below it."""
        table = super().table(result)
        table.caption = "\n".join([*([str(table.caption)] if table.caption else []), *self.also_measured(result)])
        return table

    def submission_paths(self, path: Path) -> tuple[Path, ...]:
        """Return the files of the two challenges: ``STEM_oscc.json`` and ``STEM_pnr.json`` for ``STEM.json``."""
        return tuple(path.with_name(f"{path.stem}_{challenge}{path.suffix}") for challenge in ("oscc", "pnr"))

    def write_submission(self, path: Path, scores: StateChangeAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the files of both challenges, of all clips of the split, see `submission_paths`.

        A clip that cannot be seen, as of a video that is missing, is answered by the more frequent class of training
        and by its centre, and counted: the servers take no file with some clips missing.

        Args:
            path: Whose name both are made of.
            scores: Answers to the test clips.
            levels: Not asked for by these challenges.
        """
        if not self.all_records:
            raise ValueError("the names of the test clips are not known")
        labels = self.train_clips.labels["state_change"]
        majority = bool(np.bincount(labels[labels >= 0], minlength=2).argmax())
        places = {part.record.unique_id: number for number, part in enumerate(self.test_parts)}
        states = scores.scores["state_change"].argmax(axis=1) == 1
        keyframes = scores.scores["keyframe"].argmax(axis=1)
        names, changes, frames = [], [], []
        for record in self.all_records:
            number = places.get(record.unique_id)
            names.append(record.unique_id)
            length = record.stop_frame - record.start_frame
            if number is None:
                changes.append(majority)
                frames.append(length / 2)
            else:
                changes.append(bool(states[number]))
                frame = self.frame_of(self.test_parts[number], int(keyframes[number]))
                frames.append(min(max(frame, 0.0), float(length)))
        of_states, of_keyframes = self.submission_paths(path)
        write_state_change_submission(of_states, names, changes)
        write_keyframe_submission(of_keyframes, names, frames)
        notes = []
        if len(places) < len(names):
            notes.append(
                f"{counted(len(names) - len(places), 'clip')} of {len(names):,} could not be seen: answered by the "
                f"more frequent class of training ({CLASS_NAMES['state_change'][majority]}) and by the centre"
            )
        return tuple(notes)

    def frame_of(self, part: ChangePart, place: int) -> float:
        """Return the frame of a place, counted from the start of the annotated clip."""
        return part.place_frames[place] - part.record.start_frame


def state_change_records(dataset: "DatasetRecords", split: str) -> list["StateChangeRecord"]:
    """Return the annotated clips of a split.

    Raises:
        ValueError: If the data set has none.
    """
    from earmark.datasets import Ego4D

    if not isinstance(dataset, Ego4D):
        raise ValueError(f"data set {dataset.name} has no annotated state changes; Ego4D has")
    return dataset.state_changes(split)


def _along(store: "PreparedStore", parts: Sequence[ChangePart], clips: ClipOptions) -> StateChangeClips:
    along = [along_part(part, clip_seconds=clips.clip_seconds) for part in parts]
    return StateChangeClips(store, along, view="windows", clip_seconds=clips.clip_seconds, clip_fps=clips.clip_fps)
