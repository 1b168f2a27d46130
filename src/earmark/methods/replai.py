r"""The model that is pretrained: two encoders, five heads, two objectives.

In the path of a sample it is everything between the transforms and the training loop. With before clip :math:`v_b`,
after clip :math:`v_a`, sound :math:`s`, encoders :math:`f_V, f_A` and heads :math:`h`, the embeddings are

.. math::
    b, c &= h^{clr}_V(f_V(v_b)),\; h^{clr}_V(f_V(v_a)) &\qquad a &= h^{clr}_A(f_A(s)) \\
    d  &= h^{diff}(h^{aot}_V(f_V(v_a)) - h^{aot}_V(f_V(v_b))) &\qquad a' &= h^{aot}_A(f_A(s)) \\
    d' &= h^{diff}(h^{aot}_V(f_V(v_b)) - h^{aot}_V(f_V(v_a))) &\qquad &

and the loss is :math:`L = \lambda_{clr} L_{AVC}(b, c, a) + \lambda_{aot} L_{AStC}(d, d', a')`: the paper, arXiv
2209.13583, section 3; `earmark.methods.objectives` has both terms.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from earmark.encoders import Encoder
from earmark.methods.gathering import gather_with_gradient, gather_without_gradient, rank
from earmark.methods.heads import projection_head
from earmark.methods.objectives import (
    audible_state_change_loss,
    audio_visual_correspondence_loss,
    contrastive_state_change_loss,
    directions,
    state_change_logits,
)

MIN_TEMPERATURE = 0.01


class AudioVisualModel(nn.Module):
    """Encoders, heads and losses in one module.

    So wrappers for precision, compiling and many GPUs see one forward.

    Its state dict has the original's keys: ``backbone.{video,audio}.*`` and
    ``mlp.{video_clr,audio_clr,video_aot,audio_aot,aot_diff}.{0,2}.{weight,bias}``.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        audio_encoder: (B, 1, frames, F) -> features.
        hidden_dim: Hidden size of the heads.
        out_dim: Size D of the embeddings.
        temperature: Of the correspondence loss.
        state_change_temperature: Of the state change loss.
        clr_coeff: Weight of the correspondence loss.
        aot_coeff: Weight of the state change loss.
        gather: How samples see their candidates, those of all processes: ``full``, with gradients, so that the number
            of processes does not matter, or ``reference``, without, in one process too, as in the original code.
        learnable_temperature: Learn both temperatures, from the given ones on. Each is its first value times the
            exponential of a parameter, so that weight decay pulls it back to that value. `keep_in_range`, to be called
            after each update, keeps them from 0.01 up, the bound of CLIP (Radford et al., arXiv 2103.00020, section
            2.5); `earmark.training.pretrain` does so.
        normalise_states: Scale the embeddings that a change is the difference of to unit length.
        state_change_negatives: What a change is told from: its ``reverse``, or also other samples' changes, those of
            the global ``batch`` (`contrastive_state_change_loss`).
        queue_size: Past samples that are further negatives of the correspondence loss; 0 for none.
        seed: Of the directions that the queue holds at first; not negative.

    Raises:
        ValueError: If a temperature that is to be learned begins below 0.01.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> clips = torch.randn(2, 2, 3, 4, 32, 32)
        >>> outputs = model(clips[0], clips[1], torch.randn(2, 1, 125, 80))
        >>> outputs["loss"].backward()
        >>> sorted(outputs)[:3]
        ['contrastive_loss', 'direction_accuracy', 'loss']
    """

    queue: Tensor | None
    queue_position: Tensor

    def __init__(
        self,
        video_encoder: Encoder,
        audio_encoder: Encoder,
        *,
        hidden_dim: int = 512,
        out_dim: int = 128,
        temperature: float = 0.07,
        state_change_temperature: float = 0.2,
        clr_coeff: float = 0.5,
        aot_coeff: float = 0.5,
        gather: Literal["full", "reference"] = "full",
        learnable_temperature: bool = False,
        normalise_states: bool = False,
        state_change_negatives: Literal["reverse", "batch"] = "reverse",
        queue_size: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if learnable_temperature and min(temperature, state_change_temperature) < MIN_TEMPERATURE:
            raise ValueError(
                f"learned temperatures stay at or above {MIN_TEMPERATURE}, but the first ones are {temperature} and "
                f"{state_change_temperature}"
            )
        self.temperature = temperature
        self.state_change_temperature = state_change_temperature
        self.clr_coeff = clr_coeff
        self.aot_coeff = aot_coeff
        self.gather = {"full": gather_with_gradient, "reference": gather_without_gradient}[gather]
        self.normalise_states = normalise_states
        self.state_change_negatives = state_change_negatives
        self.backbone = nn.ModuleDict({"video": video_encoder, "audio": audio_encoder})
        video_dim, audio_dim = video_encoder.output_dim, audio_encoder.output_dim
        self.mlp = nn.ModuleDict(
            {
                "video_clr": projection_head(video_dim, hidden_dim, out_dim),
                "audio_clr": projection_head(audio_dim, hidden_dim, out_dim),
                "video_aot": projection_head(video_dim, hidden_dim, out_dim),
                "audio_aot": projection_head(audio_dim, hidden_dim, out_dim),
                "aot_diff": projection_head(out_dim, hidden_dim, out_dim),
            }
        )
        self.log_temperature_scales = nn.Parameter(torch.zeros(2)) if learnable_temperature else None
        self.register_buffer("queue", None)
        if queue_size:
            # Random directions to begin with, from a generator of its own: every process must have the same.
            generator = torch.Generator().manual_seed(seed)
            self.queue = directions(torch.randn(3, queue_size, out_dim, generator=generator))
            self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
            # All processes put the same into it, so there is no need to send it around at each step.
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
                self, ["queue"]
            )

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Return all embeddings, not normalised.

        Args:
            video_before: Normalised clips (B, 3, T, H, W) before the moments.
            video_after: The same after them.
            audio: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            Tensors (B, D): ``contrastive_before, contrastive_after, contrastive_audio`` for the correspondence loss;
            ``state_before, state_after`` and ``change_forward, change_backward`` made of them, ``state_audio``, for the
            state change loss.

        Raises:
            ValueError: If the two clips differ in shape or the sounds in number.
        """
        if video_before.shape != video_after.shape or len(audio) != len(video_before):
            raise ValueError(
                "need as many sounds as clips and clips of one shape, got "
                f"{tuple(video_before.shape)} before, {tuple(video_after.shape)} after, {tuple(audio.shape)} audio"
            )
        # Both clips as one batch: they share the statistics of batch norm, so these can't tell before from after.
        video_features = self.backbone["video"](torch.cat([video_before, video_after]))
        audio_features = self.backbone["audio"](audio)
        contrastive_before, contrastive_after = self.mlp["video_clr"](video_features).chunk(2)
        state_before, state_after = self.mlp["video_aot"](video_features).chunk(2)
        if self.normalise_states:
            state_before, state_after = directions(state_before), directions(state_after)
        return {
            "contrastive_before": contrastive_before,
            "contrastive_after": contrastive_after,
            "contrastive_audio": self.mlp["audio_clr"](audio_features),
            "state_before": state_before,
            "state_after": state_after,
            "state_audio": self.mlp["audio_aot"](audio_features),
            "change_forward": self.mlp["aot_diff"](state_after - state_before),
            "change_backward": self.mlp["aot_diff"](state_before - state_after),
        }

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor,
        *,
        index: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss, its two terms and diagnostics.

        Where a process group runs, the correspondence loss contrasts with the samples of every process.

        Args:
            video_before: Normalised clips (B, 3, T, H, W) before the moments.
            video_after: The same after them.
            audio: Log-mel spectrograms (B, 1, frames, F).
            index: Which samples these are; not used, other methods need it.
            labels: Their classes; not used.

        Returns:
            Scalars: ``loss`` to minimise and its terms ``contrastive_loss`` and ``state_change_loss``, and detached,
            over this process's samples: ``positive_similarity`` and ``negative_similarity``, the mean cosine of clips
            with their own sound and with other samples' (NaN in a batch of 1, which has none);
            ``state_change_accuracy``, the share of the 2B changes on their side of 0; ``direction_accuracy``, the
            share of samples whose change fits the sound better than its reverse. Learned temperatures are given too.
        """
        embeddings = self.embed(video_before, video_after, audio)
        temperature, state_change_temperature = self._temperatures()
        contrastive_loss = audio_visual_correspondence_loss(
            video_before=embeddings["contrastive_before"],
            video_after=embeddings["contrastive_after"],
            audio=embeddings["contrastive_audio"],
            temperature=temperature,
            queue=self.queue,
            gather=self.gather,
            rank=rank(),
        )
        changes = {name: embeddings[name] for name in ("change_forward", "change_backward")}
        if self.state_change_negatives == "batch":
            state_change_loss = contrastive_state_change_loss(
                **changes,
                audio=embeddings["state_audio"],
                temperature=state_change_temperature,
                gather=self.gather,
                rank=rank(),
            )
        else:
            state_change_loss = audible_state_change_loss(
                **changes, audio=embeddings["state_audio"], temperature=state_change_temperature
            )
        if self.training and self.queue is not None:
            self._enqueue(embeddings)
        outputs = {
            "loss": self.clr_coeff * contrastive_loss + self.aot_coeff * state_change_loss,
            "contrastive_loss": contrastive_loss,
            "state_change_loss": state_change_loss,
            **_diagnostics(embeddings),
        }
        if isinstance(temperature, Tensor) and isinstance(state_change_temperature, Tensor):
            outputs |= {
                "temperature": temperature.detach(),
                "state_change_temperature": state_change_temperature.detach(),
            }
        return outputs

    def _temperatures(self) -> tuple[float | Tensor, float | Tensor]:
        """Return the temperatures of both losses: the numbers given, or learned from there."""
        if self.log_temperature_scales is None:
            return self.temperature, self.state_change_temperature
        # Not clamped here: at its bound a temperature would get no gradient, and stay there for good.
        scales = self.log_temperature_scales.exp()
        return self.temperature * scales[0], self.state_change_temperature * scales[1]

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Put learned temperatures that an update took below 0.01 back there; the next gradient can lead them away."""
        if self.log_temperature_scales is not None:
            for scale, first in zip(
                self.log_temperature_scales, (self.temperature, self.state_change_temperature), strict=True
            ):
                scale.clamp_min_(math.log(MIN_TEMPERATURE / first))

    @torch.no_grad()
    def _enqueue(self, embeddings: dict[str, Tensor]) -> None:
        """Put the global batch in the place of the oldest samples of the queue."""
        assert self.queue is not None
        names = ("contrastive_before", "contrastive_after", "contrastive_audio")
        new = gather_without_gradient(torch.stack([directions(embeddings[name]) for name in names], dim=1))
        size = self.queue.shape[1]
        new = new[-size:].transpose(0, 1).to(self.queue.dtype)
        places = (self.queue_position + torch.arange(new.shape[1], device=new.device)) % size
        self.queue[:, places] = new
        self.queue_position.copy_((self.queue_position + new.shape[1]) % size)


@torch.no_grad()
def _diagnostics(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    audio = embeddings["contrastive_audio"]
    with torch.autocast(audio.device.type, enabled=False):
        clips = torch.stack([embeddings["contrastive_before"], embeddings["contrastive_after"]])
        # (2, B, D) clips with (B, D) sounds -> (2, B, B), the pairs that belong together on the diagonals.
        similarity = directions(clips) @ directions(audio).T
        own = torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    forward, backward = state_change_logits(
        change_forward=embeddings["change_forward"],
        change_backward=embeddings["change_backward"],
        audio=embeddings["state_audio"],
    )
    return {
        "positive_similarity": similarity.masked_fill(~own, 0).sum() / (2 * own.sum()),
        "negative_similarity": similarity.masked_fill(own, 0).sum() / (2 * (~own).sum()),
        "state_change_accuracy": torch.cat([forward > 0, backward < 0]).float().mean(),
        "direction_accuracy": (forward > backward).float().mean(),
    }
