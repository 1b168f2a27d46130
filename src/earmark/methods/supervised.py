r"""Supervision by the class of the annotated action at each moment: a baseline that learns from labels, not from sound.

With linear classifiers :math:`W_t` for the label columns t (verb, noun), features f of the two clips of a sample, and
its classes :math:`y_t`, over the n labelled samples of the global batch:

.. math::
    L = -\sum_t \frac{1}{2n} \sum_{i} \sum_{x \in \{b_i, c_i\}} \log \operatorname{softmax}(W_t f(x))_{y_{ti}}
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.encoders import Encoder
from earmark.methods.base import Views, clip_features
from earmark.methods.gathering import sum_over_processes, world_size


class Supervised(nn.Module):
    """Classify the clips around each moment.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        num_classes: Number of classes by label column, such as ``{"verb": 97, "noun": 300}``.

    Raises:
        ValueError: If there is no label column.

    Source: the sum of the cross-entropies of verbs and nouns of Damen et al., arXiv 1804.02748, section 4, over
    features of one shared encoder.

    Example:
        >>> from earmark.encoders import R2Plus1D
        >>> method = Supervised(R2Plus1D(10, width=4), num_classes={"verb": 5})
        >>> clips = torch.randn(2, 2, 3, 4, 32, 32)
        >>> method(clips[0], clips[1], labels={"verb": torch.tensor([4, -1])})["loss"].backward()
    """

    uses_sound: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    views: ClassVar[Views] = "before_after"

    def __init__(self, video_encoder: Encoder, *, num_classes: Mapping[str, int]) -> None:
        super().__init__()
        if not num_classes:
            raise ValueError("supervision needs at least one label column")
        self.backbone = nn.ModuleDict({"video": video_encoder})
        self.classifiers = nn.ModuleDict(
            {column: nn.Linear(video_encoder.output_dim, number) for column, number in num_classes.items()}
        )

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor | None = None,
        *,
        labels: Mapping[str, Tensor],
        index: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and the accuracies.

        Arguments are those of `earmark.methods.base.Method.forward`; audio and index are not used.

        Returns:
            Scalars: ``loss``, 0 where no sample is labelled; and detached ``COLUMN_accuracy``, the share of clips whose
            class is predicted correctly.

        Raises:
            ValueError: If the two clips differ in shape or a label column is missing.
        """
        missing = [column for column in self.classifiers if column not in labels]
        if missing:
            raise ValueError(f"the data have no labels {', '.join(missing)} (there are: {', '.join(labels) or 'none'})")
        features = clip_features(self.backbone["video"], video_before, video_after)
        outputs = {"loss": features.new_zeros((), dtype=torch.promote_types(features.dtype, torch.float32))}
        for column, classifier in self.classifiers.items():
            target = labels[column].repeat(2)
            logits = classifier(features)
            with torch.autocast(features.device.type, enabled=False):
                logits = logits if logits.dtype == torch.float64 else logits.float()
                total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
            # Over the labelled samples of all processes: their mean is then the loss of one on the global batch.
            num_labelled = sum_over_processes((target >= 0).sum()).clamp_min(1) / world_size()
            outputs["loss"] = outputs["loss"] + total / num_labelled
            outputs[f"{column}_accuracy"] = (logits.detach().argmax(dim=1) == target).sum() / num_labelled
        return outputs
