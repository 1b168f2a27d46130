"""What the page of ``evaluate.task=order`` shows of the changes that were learned.

Beside the path of a sample: part of `earmark.cli.evaluation_page`, once the numbers are there.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from earmark.cli.config_schema import EvaluateConfig
from earmark.cli.judged import Judged

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.evaluation import Answers, Order, OrderAnswers
    from earmark.evaluation.learned_changes import EvidenceExample, LearnedChanges, ShownMoment

__all__ = ["learned_changes"]

NUM_EVIDENCE = 6  # moments; each is 50 pairs of clips to encode


def learned_changes(
    task: "Order",
    answers: "Answers[OrderAnswers]",
    judged: Judged,
    config: EvaluateConfig,
    store: "PreparedStore",
) -> "LearnedChanges":
    """Return examples of neighbours and of evidence, and maps of both encoders.

    Args:
        task: The moments.
        answers: Of the first seed.
        judged: The encoder.
        config: The checked configuration.
        store: The prepared videos.
    """
    from earmark.evaluation.learned_changes import LearnedChanges, ShownMoment, map_panels, neighbour_examples

    clips, verbs = task.test_clips, task.verbs

    def show(moment: int) -> ShownMoment:
        before, after = clips.times_of(moment)
        last = store.videos[clips.video_ids[moment]].duration_seconds - 1 / store.fps
        return ShownMoment(
            clips.video_ids[moment],
            float(clips.times_seconds[moment]),
            # as far from one another as the encoder sees them: what has changed has changed by then
            store.frames(clips.video_ids[moment], [before[0], min(after[-1], last)]),
            task.class_names[verbs[moment]] if verbs[moment] >= 0 else "",
        )

    maps = [("encoder", map_panels(task, answers.encoder))]
    if answers.baseline is not None:
        maps.append(("random encoder", map_panels(task, answers.baseline)))
    return LearnedChanges(
        neighbours=neighbour_examples(task, answers.encoder, show, seed=config.environment.seed),
        maps=maps,
        evidence=_evidence(task, answers.encoder, judged, config, show),
    )


def _evidence(
    task: "Order",
    answers: "OrderAnswers",
    judged: Judged,
    config: EvaluateConfig,
    show: "Callable[[int], ShownMoment]",
) -> "list[EvidenceExample]":
    """Return where the evidence of the order lies in moments drawn by the seed, in the pictures as they were shown."""
    import numpy as np

    from earmark.clips.transforms import VideoCrop
    from earmark.evaluation.learned_changes import EvidenceExample, drawn_moments
    from earmark.evaluation.occlusion import occlusion_map

    encoder = judged.encoders["video"].eval()
    device = next(encoder.parameters()).device
    transform = VideoCrop(crop_size=config.data_augm.crop_size, random=False).to(device)
    clips = task.test_clips.only("video")
    examples = []
    for moment in drawn_moments(task.verbs, number=NUM_EVIDENCE, seed=config.environment.seed):
        batch = clips.read_batch([(2 * moment, 0), (2 * moment + 1, 0)])
        inputs = transform(*(batch[name].to(device) for name in ("video", "seed", "video_size")))
        margin, drops = occlusion_map(encoder, inputs[0], inputs[1], answers.probe.direction)
        pictures = (inputs * transform.std + transform.mean).mul(255).round().clamp(0, 255).byte().cpu()
        shown = np.stack([pictures[0, :, 0], pictures[1, :, -1]]).transpose(0, 2, 3, 1)
        examples.append(EvidenceExample(dataclasses.replace(show(moment), frames=shown), margin, drops))
    return examples
