"""Action recognition as the paper's numbers on EPIC-KITCHENS-100 were made, for comparison with them.

Path of a sample: clips of annotated actions --encoder that drifts--> --linear probe--> scores --> numbers.

Every number of the paper's table is a number of 2,400ths: what one of the original's four processes judged, one clip of
0.5 s of each segment at a place drawn at random, once, with one seed. Its probe left batch norm in train mode while it
trained, so that the running statistics of the "frozen" encoder became those of the annotated clips. All of that is done
here, on purpose; `earmark.evaluation.action_recognition` is what to go by.

What is assumed, since the numbers do not tell: the first process's share is every fourth segment of the annotations in
their order, as torch's DistributedSampler gives it without shuffling, in batches of 32 without the incomplete last one
(9,668 segments: 2,417, of which 75 x 32 = 2,400). Training batches of 128 lie over the four processes in the same way,
each normalizes by its own 32 clips, the running statistics are those of the first, incomplete batches are left out, and
the test is in evaluation mode. Crops are those of the full protocol.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import collate
from earmark.clips.loading import load_batches
from earmark.clips.sampling import epoch_order, sample_seed
from earmark.console import new_console
from earmark.datasets import parents_in
from earmark.evaluation.action_parts import action_parts
from earmark.evaluation.action_recognition import ActionRecognition
from earmark.evaluation.base import ClipOptions, RecordCount, Setting, joined_features
from earmark.evaluation.features import Modality
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, initial_weights
from earmark.evaluation.probing import ProbeAnswers

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["PUBLISHED_PROBE", "PublishedActionRecognition", "published_segments"]

NUM_PROCESSES = 4
NUM_PUBLISHED = 2400
PUBLISHED_PROBE = ProbeOptions(standardize=False)


def published_segments(num_segments: int, *, batch_size: int = PUBLISHED_PROBE.batch_size) -> npt.NDArray[np.int64]:
    """Return which segments of a split the paper's numbers are of: those that the first of four processes judged.

    Args:
        num_segments: Of the split, in the order of the annotations.
        batch_size: Of all processes together.

    Returns:
        Their places; all where the first process's share is smaller than the published one.

    Example:
        >>> segments = published_segments(9668)
        >>> len(segments), segments[:3].tolist(), len(published_segments(5000))
        (2400, [0, 4, 8], 5000)
    """
    share = np.arange(0, num_segments, NUM_PROCESSES)
    per_process = batch_size // NUM_PROCESSES
    share = share[: len(share) // per_process * per_process]
    return share if len(share) >= NUM_PUBLISHED else np.arange(num_segments)


@dataclass(frozen=True)
class PublishedActionRecognition(ActionRecognition):
    """The task by the published protocol; see above. One seed, no cache: the encoder is another at each step.

    Attributes:
        protocol: What was judged, in words.
    """

    title: ClassVar[str] = "Action recognition by the published protocol, % [95 % interval]"

    protocol: str = ""

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions = PUBLISHED_PROBE,
    ) -> Self:
        """Cut one clip, at a place that each visit draws, of each training action and of the segments that count."""

        def cut(actions: Any) -> ActionClips:
            return ActionClips(
                store,
                actions,
                clip_seconds=clips.clip_seconds,
                clip_fps=clips.clip_fps,
                random=True,
                audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
                pictures="video" in clips.modalities,
            )

        of_split = dataset.actions(split)
        places = published_segments(len(of_split), batch_size=probe.batch_size).tolist()
        train, test = cut(dataset.actions("train")), cut([of_split[place] for place in places])
        judged = (
            f"all {len(of_split):,} actions, fewer than give the first of four processes {NUM_PUBLISHED:,}"
            if len(places) == len(of_split)
            else f"{len(places):,} of {len(of_split):,} actions, those of the first of four processes"
        )
        parent = parents_in(dataset)
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=dataset.classes,
            probe=probe,
            train_videos=[parent(action.video_id) for action in train.actions],
            test_videos=[parent(action.video_id) for action in test.actions],
            records=tuple(
                RecordCount(part, len(of.actions), tuple(of.left_out)) for part, of in (("train", train), (split, test))
            ),
            modalities=clips.modalities,
            parts=action_parts(dataset, test.actions, split),
            protocol=f"{judged}; one random clip each, batch norm that drifts while the probe trains, one seed",
        )

    @property
    def needs_tokens(self) -> bool:
        """Never: it is a linear probe."""
        return False

    def options(self) -> dict[str, Any]:
        """Return those of the probe, and what was judged."""
        return {**super().options(), "protocol": self.protocol}

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[ProbeAnswers]:
        """Train the probe while the statistics of a copy of the encoders drift, then answer in evaluation mode."""
        drifting = {modality: copy.deepcopy(encoders[modality]).to(setting.device) for modality in self.modalities}
        for transform in setting.transforms.values():
            transform.to(setting.device)
        answers = []
        for seed in setting.seeds:
            heads = self._train(drifting, dataclasses.replace(setting, seed=seed), label=label)
            uncached = dataclasses.replace(setting.features, cache_dir=None)
            features = joined_features(
                drifting,
                self.test_clips,
                task=self,
                setting=dataclasses.replace(setting, features=uncached, seed=seed),
                label=f"{label}, test actions by the published protocol",
            )
            with torch.inference_mode():
                test = torch.from_numpy(features[:, 0]).to(setting.device)
                scores = {column: head(test).log_softmax(dim=-1).cpu().numpy() for column, head in heads.items()}
            answers.append(ProbeAnswers(scores, {}))
        return answers

    def _train(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> dict[str, nn.Linear]:
        probe, device = self.probe, torch.device(setting.device)
        num_items = len(self.train_clips)
        batch_size = min(probe.batch_size, num_items)
        heads: dict[str, nn.Linear] = {}
        optimizer: torch.optim.SGD | None = None
        rates = np.full(probe.epochs, probe.lr)
        for milestone in probe.milestones:
            rates[milestone:] *= probe.gamma
        steps_of_epoch = num_items // batch_size

        def batches() -> Iterator[list[tuple[int, int]]]:
            for epoch in range(probe.epochs):
                order = epoch_order(num_items, seed=setting.seed, epoch=epoch).tolist()
                for step in range(steps_of_epoch):
                    indices = order[step * batch_size : (step + 1) * batch_size]
                    yield [(index, sample_seed(setting.seed, epoch, index)) for index in indices]

        loaded = load_batches(
            self.train_clips, batches(), collate_fn=collate, num_workers=setting.features.num_workers, device=device
        )
        labels = {
            column: torch.from_numpy(self.train_clips.labels[column][self.train_clips.action_of_item]).to(device)
            for column in self.class_names
        }
        shown = track(
            loaded,
            f"published protocol: {label}",
            total=probe.epochs * steps_of_epoch,
            console=new_console(stderr=True),
            disable=not setting.features.progress,
        )
        with closing(loaded), _own_draws(setting.seed, device):
            for step, batch in enumerate(shown):
                features = self._drifting_features(encoders, batch, setting)
                if optimizer is None:
                    heads = {
                        column: _head(features.shape[1], len(names), seed=setting.seed, column=column).to(device)
                        for column, names in self.class_names.items()
                    }
                    optimizer = torch.optim.SGD(
                        [weight for head in heads.values() for weight in head.parameters()],
                        lr=probe.lr,
                        momentum=probe.momentum,
                        weight_decay=probe.weight_decay,
                    )
                for group in optimizer.param_groups:
                    group["lr"] = float(rates[step // steps_of_epoch])
                items = batch["index"]
                losses = [_cross_entropy(head(features), labels[column][items]) for column, head in heads.items()]
                optimizer.zero_grad()
                torch.autograd.backward(losses)
                optimizer.step()
        return heads

    @torch.no_grad()
    def _drifting_features(
        self, encoders: Mapping[Modality, nn.Module], batch: Mapping[str, Tensor], setting: Setting
    ) -> Tensor:
        """Return features (B, D) as four processes would make them, the first of which moves the statistics."""
        joined = []
        for modality in self.modalities:
            encoder, transform = encoders[modality].train(), setting.transforms[modality]
            if modality == "audio":
                inputs = transform(batch["audio"])
            else:
                inputs = transform(batch["video"], batch["seed"], batch["video_size"])
            norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
            tracked = [norm.track_running_stats for norm in norms]
            rows: list[Tensor] = []
            for process in range(min(NUM_PROCESSES, len(inputs))):
                rows.append(encoder(inputs[process::NUM_PROCESSES]))
                for norm in norms:
                    norm.track_running_stats = False
            for norm, was in zip(norms, tracked, strict=True):
                norm.track_running_stats = was
            features = torch.empty((len(inputs), rows[0].shape[1]), device=rows[0].device)
            for process, of_process in enumerate(rows):
                features[process::NUM_PROCESSES] = of_process.float()
            joined.append(features)
        return torch.cat(joined, dim=1)


@contextmanager
def _own_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Have modules that draw, such as dropout, do so from the seed, and others not notice."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _head(in_dim: int, num_classes: int, *, seed: int, column: str) -> nn.Linear:
    head = nn.Linear(in_dim, num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(initial_weights(in_dim, num_classes, seed=seed, column=column)))
        head.bias.zero_()
    return head


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)
