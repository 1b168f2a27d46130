"""SimCLR on video: two crops of one clip against all other clips, without sound.

The loss is `earmark.methods.objectives.nt_xent_loss`.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from earmark.encoders import Encoder
from earmark.methods.base import Views, clip_features
from earmark.methods.gathering import gather_with_gradient, rank
from earmark.methods.heads import projection_head
from earmark.methods.objectives import l2_normalize, nt_xent_loss


class SimCLRVideo(nn.Module):
    """Contrast two views of each clip.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        temperature: Divides the similarities.
        hidden_dim: Hidden size of the head.
        out_dim: Size D of the embeddings.

    Source: Chen et al., arXiv 2002.05709, equation 1; on video Qian et al., arXiv 2008.03800, equation 1, with the same
    crop for all frames and temperature 0.1. Their stronger colour augmentation is the option `color_jitter` of
    `earmark.clips.transforms.VideoCrop`.

    Example:
        >>> from earmark.encoders import R2Plus1D
        >>> method = SimCLRVideo(R2Plus1D(10, width=4))
        >>> views = torch.randn(2, 2, 3, 4, 32, 32)
        >>> method(views[0], views[1])["loss"].backward()
    """

    uses_sound: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    views: ClassVar[Views] = "same_clip"

    def __init__(
        self, video_encoder: Encoder, *, temperature: float = 0.1, hidden_dim: int = 512, out_dim: int = 128
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.backbone = nn.ModuleDict({"video": video_encoder})
        self.mlp = nn.ModuleDict({"video": projection_head(video_encoder.output_dim, hidden_dim, out_dim)})

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor | None = None,
        *,
        index: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and diagnostics.

        Arguments and errors are those of `earmark.methods.base.Method.forward`, the two views of each clip in place of
        the clips before and after; audio, index and labels are not used.

        Returns:
            Scalars: ``loss``, and detached, over this process's samples, ``positive_similarity`` and
            ``negative_similarity``, the mean cosine of views with the other view of their clip and with those of other
            clips (NaN in a batch of 1).
        """
        views = clip_features(self.backbone["video"], video_before, video_after).chunk(2)
        first, second = (self.mlp["video"](x) for x in views)
        loss = nt_xent_loss(
            first=first, second=second, temperature=self.temperature, gather=gather_with_gradient, rank=rank()
        )
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            similarity = l2_normalize(first) @ l2_normalize(second).T
        num_samples = len(similarity)
        own = similarity.diagonal().sum()
        return {
            "loss": loss,
            "positive_similarity": own / num_samples,
            "negative_similarity": (similarity.sum() - own) / (num_samples * (num_samples - 1) or torch.nan),
        }
