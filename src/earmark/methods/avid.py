r"""AVID: audio-visual instance discrimination against a memory bank.

Each sample of the data set has two memories, unit vectors :math:`\bar v_i` and :math:`\bar a_i`: moving averages of the
embeddings of its clips and of its sound. Clips must find the memory of their sound among those of samples drawn at
random, and sounds that of their clips (cross-AVID). With b and c the embeddings of the two clips and
`noise_contrastive_loss` as :math:`\ell(x, \bar y)`, the similarity over :math:`\tau` of x with the memory of its own
sample and with K others:

.. math::
    L = \tfrac12 \Bigl[ \tfrac12 \bigl( \ell(b, \bar a) + \ell(c, \bar a) \bigr) + \ell(a, \bar v) \Bigr]

    \bar v_i \leftarrow \widehat{m \bar v_i + (1 - m) \widehat{\hat b_i + \hat c_i}}, \qquad
    \bar a_i \leftarrow \widehat{m \bar a_i + (1 - m) \hat a_i}
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from earmark.clips.sampling import sample_seed
from earmark.clips.splitmix64 import random_integers
from earmark.encoders import Encoder
from earmark.methods.base import Views, audio_features, clip_features
from earmark.methods.gathering import gather_without_gradient, world_size
from earmark.methods.heads import projection_head
from earmark.methods.objectives import l2_normalize, noise_contrastive_loss


class AVID(nn.Module):
    """Cross-modal instance discrimination (cross-AVID) with a memory bank.

    The paper has one clip per sample; here both clips around a moment are compared with the sound, so that the data are
    those of RepLAI. The initial memories are a function of the seed; the negatives are one of the seed, the sample and
    the number of steps done. So neither depends on the number of processes or on what else was drawn, and the bank is
    the same in all processes.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        audio_encoder: (B, 1, frames, F) -> features.
        num_samples: Size N of the data set.
        num_negatives: K, memories drawn for each sample.
        momentum: m, the share of a memory that stays at an update.
        temperature: Divides the similarities.
        hidden_dim: Hidden size of the heads.
        out_dim: Size D of the embeddings.
        seed: Seeds the initial memories and the draws of negatives; not negative.

    Raises:
        ValueError: If there are fewer than 2 samples, no negatives, or momentum is not in [0, 1).

    Source: Morgado et al., arXiv 2004.12943, section 3 (cross-AVID) and their code: 1024 negatives, momentum 0.5,
    temperature 0.07, Z from the first batch.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> method = AVID(R2Plus1D(10, width=4), SpecCNN9(width=4), num_samples=10, num_negatives=5)
        >>> clips = torch.randn(2, 2, 3, 4, 32, 32)
        >>> outputs = method(clips[0], clips[1], torch.randn(2, 1, 125, 80), index=torch.tensor([3, 7]))
        >>> outputs["loss"].backward()
    """

    uses_sound: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    views: ClassVar[Views] = "before_after"

    video_memory: Tensor
    audio_memory: Tensor
    log_partition: Tensor
    num_steps: Tensor

    def __init__(
        self,
        video_encoder: Encoder,
        audio_encoder: Encoder,
        *,
        num_samples: int,
        num_negatives: int = 1024,
        momentum: float = 0.5,
        temperature: float = 0.07,
        hidden_dim: int = 512,
        out_dim: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_samples < 2 or num_negatives < 1 or not 0 <= momentum < 1:
            raise ValueError(
                "need at least 2 samples, 1 negative and a momentum from 0 to below 1, "
                f"got {num_samples}, {num_negatives}, {momentum}"
            )
        self.num_negatives, self.momentum, self.temperature = num_negatives, momentum, temperature
        self.backbone = nn.ModuleDict({"video": video_encoder, "audio": audio_encoder})
        self.mlp = nn.ModuleDict(
            {
                "video": projection_head(video_encoder.output_dim, hidden_dim, out_dim),
                "audio": projection_head(audio_encoder.output_dim, hidden_dim, out_dim),
            }
        )
        # A generator of its own: every process must start with the same memories.
        memories = l2_normalize(torch.randn(2, num_samples, out_dim, generator=torch.Generator().manual_seed(seed)))
        self._seed_of_draws = sample_seed(seed, 0, 0)
        self.register_buffer("video_memory", memories[0].clone())
        self.register_buffer("audio_memory", memories[1].clone())
        self.register_buffer("log_partition", torch.zeros(()))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        # All processes make the same updates, so there is no need to broadcast the whole bank at each step.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            self, ["video_memory", "audio_memory"]
        )

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor,
        *,
        index: Tensor,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and diagnostics; in train mode also update the memories of these samples.

        Arguments and errors are those of `earmark.methods.base.Method.forward`; each index occurs at most once in the
        global batch, and labels are not used.

        Returns:
            Scalars: ``loss``, and detached ``positive_similarity`` and ``negative_similarity``, the mean cosine of
            embeddings with the memory of their own sample and with those drawn.
        """
        clips = clip_features(self.backbone["video"], video_before, video_after)
        sounds = audio_features(self.backbone["audio"], audio, num_samples=len(video_before))
        before, after = (l2_normalize(self.mlp["video"](x)) for x in clips.chunk(2))
        sound = l2_normalize(self.mlp["audio"](sounds))
        negatives = self._draw(index)
        with torch.autocast(sound.device.type, enabled=False):
            # Similarities (B, 1 + K) of each embedding with the memory of its own sample and with those drawn.
            own_and_drawn = torch.cat([index[:, None], negatives], dim=1)
            of_sounds, of_clips = self.audio_memory[own_and_drawn], self.video_memory[own_and_drawn]
            pairs = ((before, of_sounds), (after, of_sounds), (sound, of_clips))
            similarities = torch.stack([torch.einsum("bd,bkd->bk", x, memory) for x, memory in pairs])
        logits = similarities / self.temperature
        log_partition = torch.where(self.num_steps == 0, _log_mean_exp(logits[:, :, 1:]), self.log_partition)
        of_before, of_after, of_sound = (
            noise_contrastive_loss(
                positive_logits=logit[:, 0], negative_logits=logit[:, 1:], log_partition=log_partition
            )
            for logit in logits
        )
        if self.training:
            self._remember(index, before, after, sound, log_partition)
        return {
            "loss": ((of_before + of_after) / 2 + of_sound) / 2,
            "positive_similarity": similarities[:, :, 0].detach().mean(),
            "negative_similarity": similarities[:, :, 1:].detach().mean(),
        }

    def _draw(self, index: Tensor) -> Tensor:
        """Draw K other samples for each, int64 (B, K), uniformly and with repetition."""
        num_others = len(self.video_memory) - 1
        visit = index + self.num_steps * (num_others + 1)
        draws = random_integers(visit ^ self._seed_of_draws, num_draws=self.num_negatives)
        others = draws * num_others >> 31  # draws are below 2^31
        return others + (others >= index[:, None])

    @torch.no_grad()
    def _remember(self, index: Tensor, before: Tensor, after: Tensor, sound: Tensor, log_partition: Tensor) -> None:
        all_index = gather_without_gradient(index)
        new = gather_without_gradient(torch.stack([l2_normalize(before + after), sound], dim=1)).unbind(dim=1)
        for memory, x in zip((self.video_memory, self.audio_memory), new, strict=True):
            kept = self.momentum * memory[all_index] + (1 - self.momentum) * x
            memory[all_index] = l2_normalize(kept).to(memory.dtype)
        self.log_partition.copy_(log_partition)
        self.num_steps += 1


@torch.no_grad()
def _log_mean_exp(logits: Tensor) -> Tensor:
    """Return log Z: the logarithm of the mean of exp(logits) over all processes."""
    log_sums = gather_without_gradient(logits.flatten().logsumexp(dim=0, keepdim=True))
    return log_sums.logsumexp(dim=0) - math.log(logits.numel() * world_size())
