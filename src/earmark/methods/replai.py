r"""RepLAI: two encoders, five heads, two objectives.

With before clip :math:`v_b`, after clip :math:`v_a`, sound :math:`s`, encoders :math:`f_V, f_A` and heads :math:`h`,
the embeddings are

.. math::
    b, c &= h^{clr}_V(f_V(v_b)),\; h^{clr}_V(f_V(v_a)) &\qquad a &= h^{clr}_A(f_A(s)) \\
    d  &= h^{diff}(h^{aot}_V(f_V(v_a)) - h^{aot}_V(f_V(v_b))) &\qquad a' &= h^{aot}_A(f_A(s)) \\
    d' &= h^{diff}(h^{aot}_V(f_V(v_b)) - h^{aot}_V(f_V(v_a))) &\qquad &

and the loss is :math:`L = \lambda_{clr} L_{AVC}(b, c, a) + \lambda_{aot} L_{AStC}(d, d', a')`: the paper, arXiv
2209.13583, section 3; `earmark.methods.objectives` has both terms.

Three terms that the paper does not have can be added, none of which needs a pass of an encoder more:

- :math:`\lambda_{pair} L_{NT}(b, c)` matches the two clips of a moment against those of other moments, as SimCLR does
  with two crops of one clip.
- :math:`\lambda_{unit}` times the cross-entropy of linear classifiers that tell each clip's sound unit
  (`earmark.methods.sound_units`) from the clip's features.
- :math:`\lambda_{moment}` times the binary cross-entropy of a head that tells from
  :math:`|f_V(v_a) - f_V(v_b)|` whether there is a moment between the clips or a quiet time, at which nothing is heard;
  both kinds have equal parts in it. A quiet time is left out of the losses that compare samples, and of that of the
  change.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name
from torch.nn.parallel import DistributedDataParallel

from earmark.encoders import Encoder
from earmark.methods.base import Views, audio_features, clip_features
from earmark.methods.gathering import (
    gather_with_gradient,
    gather_without_gradient,
    rank,
    sum_over_processes,
    world_size,
)
from earmark.methods.heads import projection_head
from earmark.methods.objectives import (
    audible_state_change_loss,
    audio_visual_correspondence_loss,
    contrastive_state_change_loss,
    l2_normalize,
    nt_xent_loss,
    state_change_logits,
)
from earmark.methods.sound_units import SoundUnits

MIN_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True)
class ContrastiveOptions:
    """Options of the audio-visual correspondence loss; the defaults are the paper's.

    Attributes:
        weight: Factor of the loss in the sum.
        temperature: Divides the similarities; positive.
        queue_size: Number of past samples that are further negatives; 0 for none.
    """

    weight: float = 0.5
    temperature: float = 0.07
    queue_size: int = 0


@dataclass(frozen=True, slots=True)
class StateChangeOptions:
    """Options of the audible state change loss; the defaults are the paper's.

    Attributes:
        weight: Factor of the loss in the sum.
        temperature: Divides the similarities; positive.
        normalize_states: Whether to L2-normalize the embeddings that a change is the difference of.
        negatives: What a change is contrasted with: its ``reverse``, or also the changes of the other samples of the
            global ``batch`` (`contrastive_state_change_loss`).
    """

    weight: float = 0.5
    temperature: float = 0.2
    normalize_states: bool = False
    negatives: Literal["reverse", "batch"] = "reverse"


@dataclass(frozen=True, slots=True)
class ClipPairOptions:
    """Options of the loss that matches the clips before and after a moment; by default there is none, as in the paper.

    Attributes:
        weight: Factor of the loss in the sum; 0 for none.
        temperature: Divides the similarities; positive. The default is that of SimCLR on video.
    """

    weight: float = 0.0
    temperature: float = 0.1


@dataclass(frozen=True, slots=True)
class SoundUnitOptions:
    """Options of the loss that tells a clip's sound unit; by default there is none, as in the paper.

    Attributes:
        weight: Factor of the loss in the sum; 0 for none.
        num_units: Of each clustering of the sounds; the loss is the mean over them.
    """

    weight: float = 0.0
    num_units: tuple[int, ...] = (64, 128)


@dataclass(frozen=True, slots=True)
class MomentDetectionOptions:
    """Options of the loss that tells moments from quiet times; by default there is none, as in the paper.

    Attributes:
        weight: Factor of the loss in the sum; 0 for none.
        quiet_share: Of the samples, above 0 and below 1. By it the terms are weighed so that moments and quiet times
            have equal parts on average.
    """

    weight: float = 0.0
    quiet_share: float = 0.5


# Frozen, so one of each can serve every model.
_CONTRASTIVE = ContrastiveOptions()
_STATE_CHANGE = StateChangeOptions()
_CLIP_PAIR = ClipPairOptions()
_SOUND_UNIT = SoundUnitOptions()
_MOMENT_DETECTION = MomentDetectionOptions()


class AudioVisualModel(nn.Module):
    """RepLAI as one module: encoders, heads and losses.

    As one module, so that wrappers for precision, compiling and many GPUs see one forward.

    Its state dict has the original's keys: ``backbone.{video,audio}.*`` and
    ``mlp.{video_clr,audio_clr,video_aot,audio_aot,aot_diff}.{0,2}.{weight,bias}``.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        audio_encoder: (B, 1, frames, F) -> features.
        hidden_dim: Hidden size of the heads.
        out_dim: Size D of the embeddings.
        contrastive: Options of the correspondence loss.
        state_change: Options of the state change loss.
        clip_pair: Options of the loss that matches the two clips of a moment.
        sound_unit: Options of the loss that tells a clip's sound unit.
        moment_detection: Options of the loss that tells moments from quiet times.
        gather: How samples see the candidates of all processes: ``full``, with gradients, so that the number of
            processes does not matter, or ``reference``, without, in one process too, as in the original code.
        learnable_temperature: Learn both temperatures, starting from the given ones. Each is its initial value times
            the exponential of a parameter, so that weight decay pulls it back to that value. `keep_in_range`, to be
            called after each update, keeps them from 0.01 up, the bound of CLIP (Radford et al., arXiv 2103.00020,
            section 2.5); the training loop does so.
        seed: Seeds the initial content of the queue, and the sound units; not negative.

    Raises:
        ValueError: If a temperature that is to be learned starts below 0.01, or sound units are asked for and a
            clustering has fewer than 2.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> clips = torch.randn(2, 2, 3, 4, 32, 32)
        >>> outputs = model(clips[0], clips[1], torch.randn(2, 1, 125, 80))
        >>> outputs["loss"].backward()
        >>> sorted(outputs)[:3]
        ['contrastive_loss', 'direction_accuracy', 'loss']
    """

    uses_sound: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    views: ClassVar[Views] = "before_after"

    queue: Tensor | None
    queue_position: Tensor

    def __init__(
        self,
        video_encoder: Encoder,
        audio_encoder: Encoder,
        *,
        hidden_dim: int = 512,
        out_dim: int = 128,
        contrastive: ContrastiveOptions = _CONTRASTIVE,
        state_change: StateChangeOptions = _STATE_CHANGE,
        clip_pair: ClipPairOptions = _CLIP_PAIR,
        sound_unit: SoundUnitOptions = _SOUND_UNIT,
        moment_detection: MomentDetectionOptions = _MOMENT_DETECTION,
        gather: Literal["full", "reference"] = "full",
        learnable_temperature: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if learnable_temperature and min(contrastive.temperature, state_change.temperature) < MIN_TEMPERATURE:
            raise ValueError(
                f"learned temperatures stay at or above {MIN_TEMPERATURE}, but the initial ones are "
                f"{contrastive.temperature} and {state_change.temperature}"
            )
        self.contrastive, self.state_change, self.clip_pair = contrastive, state_change, clip_pair
        self.sound_unit, self.moment_detection = sound_unit, moment_detection
        self.gather = {"full": gather_with_gradient, "reference": gather_without_gradient}[gather]
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
        # Only where they are used: the keys of a state dict are otherwise the original's.
        if moment_detection.weight:
            self.mlp["moment"] = projection_head(video_dim, hidden_dim, 1)
        self.sound_units: SoundUnits | None = None
        if sound_unit.weight:
            self.sound_units = SoundUnits(sound_unit.num_units, seed=seed)
            self.unit_classifiers = nn.ModuleList(nn.Linear(video_dim, number) for number in sound_unit.num_units)
        self.log_temperature_scales = nn.Parameter(torch.zeros(2)) if learnable_temperature else None
        self.register_buffer("queue", None)
        if contrastive.queue_size:
            # Random unit vectors at first, from a generator of its own: every process must have the same.
            generator = torch.Generator().manual_seed(seed)
            self.queue = l2_normalize(torch.randn(3, contrastive.queue_size, out_dim, generator=generator))
            self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
        # All processes make the same updates, so there is no need to broadcast these at each step.
        same = [name for name, _ in self.named_buffers() if name == "queue" or name.startswith("sound_units.")]
        if same:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
                self, same
            )

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Return all embeddings, not normalized.

        Args:
            video_before: Normalized clips (B, 3, T, H, W) before the moments.
            video_after: The same after them.
            audio: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            Tensors (B, D): ``contrastive_before, contrastive_after, contrastive_audio`` for the correspondence loss;
            ``state_before, state_after`` and ``change_forward, change_backward`` made of them, ``state_audio``, for the
            state change loss. And ``features_before, features_after`` (B, output_dim), of the clips.

        Raises:
            ValueError: If the two clips differ in shape or the sounds in number.
        """
        of_clips = clip_features(self.backbone["video"], video_before, video_after)
        of_sounds = audio_features(self.backbone["audio"], audio, num_samples=len(video_before))
        features_before, features_after = of_clips.chunk(2)
        contrastive_before, contrastive_after = self.mlp["video_clr"](of_clips).chunk(2)
        state_before, state_after = self.mlp["video_aot"](of_clips).chunk(2)
        if self.state_change.normalize_states:
            state_before, state_after = l2_normalize(state_before), l2_normalize(state_after)
        return {
            "features_before": features_before,
            "features_after": features_after,
            "contrastive_before": contrastive_before,
            "contrastive_after": contrastive_after,
            "contrastive_audio": self.mlp["audio_clr"](of_sounds),
            "state_before": state_before,
            "state_after": state_after,
            "state_audio": self.mlp["audio_aot"](of_sounds),
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
        """Return the loss, its terms and diagnostics.

        Where a process group runs, losses that compare samples contrast with those of every process.

        Arguments and errors are those of `earmark.methods.base.Method.forward`; index is not used, and of the labels
        ``moment`` alone: 1 for moments, 0 for quiet times. Without it, all samples are moments.

        Returns:
            Scalars: ``loss`` to minimize and its terms ``contrastive_loss``, ``state_change_loss`` and, with a weight
            above 0, ``clip_pair_loss``, ``sound_unit_loss`` (0 until there are units) and ``moment_detection_loss``,
            and detached, over this process's moments (all samples where it has none): ``positive_similarity`` and
            ``negative_similarity``, the mean cosine of clips with their own sound and with other samples' (NaN in a
            batch of 1, which has none); ``state_change_accuracy``, the share of changes, forward and reversed, whose
            logit has the right sign; ``direction_accuracy``, the share of samples whose change fits the sound better
            than its reverse does; over all samples ``moment_detection_accuracy``, the share that is told right.
            Learned temperatures are returned too.

        Raises:
            ValueError: As of `earmark.methods.base.Method.forward`, if moments are to be told from quiet times and
                there is no such label, or if there is one and a queue, which would hold quiet times.
        """
        embeddings = self.embed(video_before, video_after, audio)
        is_moment = (labels or {}).get("moment")
        weights = None
        if is_moment is not None:
            if self.queue is not None:
                raise ValueError("a queue of past samples would hold quiet times, which are no negatives")
            weights = _mean_one((is_moment > 0).to(_at_least_float32(embeddings["contrastive_audio"]).dtype))
        temperature, state_change_temperature = self._temperatures()
        contrastive_loss = audio_visual_correspondence_loss(
            video_before=embeddings["contrastive_before"],
            video_after=embeddings["contrastive_after"],
            audio=embeddings["contrastive_audio"],
            temperature=temperature,
            queue=self.queue,
            weights=weights,
            gather=self.gather,
            rank=rank(),
        )
        changes = {name: embeddings[name] for name in ("change_forward", "change_backward")}
        if self.state_change.negatives == "batch":
            state_change_loss = contrastive_state_change_loss(
                **changes,
                audio=embeddings["state_audio"],
                temperature=state_change_temperature,
                weights=weights,
                gather=self.gather,
                rank=rank(),
            )
        else:
            state_change_loss = audible_state_change_loss(
                **changes, audio=embeddings["state_audio"], temperature=state_change_temperature, weights=weights
            )
        if self.training and self.queue is not None:
            self._enqueue(embeddings)
        outputs = {
            "loss": self.contrastive.weight * contrastive_loss + self.state_change.weight * state_change_loss,
            "contrastive_loss": contrastive_loss,
            "state_change_loss": state_change_loss,
            **_diagnostics(embeddings, is_moment),
        }
        if self.clip_pair.weight:
            outputs["clip_pair_loss"] = nt_xent_loss(
                first=embeddings["contrastive_before"],
                second=embeddings["contrastive_after"],
                temperature=self.clip_pair.temperature,
                weights=weights,
                gather=self.gather,
                rank=rank(),
            )
            outputs["loss"] = outputs["loss"] + self.clip_pair.weight * outputs["clip_pair_loss"]
        if self.sound_units is not None:
            outputs["sound_unit_loss"] = self._sound_unit_loss(embeddings, audio)
            outputs["loss"] = outputs["loss"] + self.sound_unit.weight * outputs["sound_unit_loss"]
        if self.moment_detection.weight:
            outputs |= self._detect_moments(embeddings, is_moment)
            outputs["loss"] = outputs["loss"] + self.moment_detection.weight * outputs["moment_detection_loss"]
        if isinstance(temperature, Tensor) and isinstance(state_change_temperature, Tensor):
            outputs |= {
                "temperature": temperature.detach(),
                "state_change_temperature": state_change_temperature.detach(),
            }
        return outputs

    def _sound_unit_loss(self, embeddings: Mapping[str, Tensor], audio: Tensor) -> Tensor:
        """Return how badly the units of the sounds are told by both clips of each; 0 while units are collected."""
        assert self.sound_units is not None
        of_clips = torch.cat([embeddings["features_before"], embeddings["features_after"]])
        logits = [classifier(of_clips) for classifier in self.unit_classifiers]
        if not self.sound_units.are_made:
            if self.training:
                self.sound_units.collect(audio)
            # Not without gradient: where processes work together, every parameter must have one.
            return torch.stack([x.sum() * 0.0 for x in logits]).sum()
        units = self.sound_units.of(audio)
        with torch.autocast(of_clips.device.type, enabled=False):
            losses = [
                F.cross_entropy(_at_least_float32(x), unit.repeat(2)) for x, unit in zip(logits, units, strict=True)
            ]
            return torch.stack(losses).mean()

    def _detect_moments(self, embeddings: Mapping[str, Tensor], is_moment: Tensor | None) -> dict[str, Tensor]:
        """Return loss and accuracy of telling moments from quiet times by what changes between the clips."""
        if is_moment is None:
            raise ValueError("moments cannot be told from quiet times: the samples have no label moment")
        change = (embeddings["features_after"] - embeddings["features_before"]).abs()
        logits = self.mlp["moment"](change)[:, 0]
        with torch.autocast(logits.device.type, enabled=False):
            logits = _at_least_float32(logits)
            moment = (is_moment > 0).to(logits.dtype)
            share = self.moment_detection.quiet_share
            weights = moment / (2 * (1 - share)) + (1 - moment) / (2 * share)
            loss = F.binary_cross_entropy_with_logits(logits, moment, weight=weights)
        accuracy = ((logits.detach() > 0) == (is_moment > 0)).float().mean()
        return {"moment_detection_loss": loss, "moment_detection_accuracy": accuracy}

    def _temperatures(self) -> tuple[float | Tensor, float | Tensor]:
        """Return the temperatures of both losses: those given, or those learned from there on."""
        if self.log_temperature_scales is None:
            return self.contrastive.temperature, self.state_change.temperature
        # Not clamped here: at its bound a temperature would get no gradient, and stay there for good.
        scales = self.log_temperature_scales.exp()
        return self.contrastive.temperature * scales[0], self.state_change.temperature * scales[1]

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Raise learned temperatures that an update took below 0.01 to that bound; the next gradient can raise them."""
        if self.log_temperature_scales is not None:
            initial = self.contrastive.temperature, self.state_change.temperature
            for scale, temperature in zip(self.log_temperature_scales, initial, strict=True):
                scale.clamp_min_(math.log(MIN_TEMPERATURE / temperature))

    @torch.no_grad()
    def _enqueue(self, embeddings: dict[str, Tensor]) -> None:
        """Replace the oldest samples of the queue by the global batch."""
        assert self.queue is not None
        names = ("contrastive_before", "contrastive_after", "contrastive_audio")
        new = gather_without_gradient(torch.stack([l2_normalize(embeddings[name]) for name in names], dim=1))
        size = self.queue.shape[1]
        new = new[-size:].transpose(0, 1).to(self.queue.dtype)
        places = (self.queue_position + torch.arange(new.shape[1], device=new.device)) % size
        self.queue[:, places] = new
        self.queue_position.copy_((self.queue_position + new.shape[1]) % size)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@torch.no_grad()
def _mean_one(counted: Tensor) -> Tensor:
    """Return weights (B,) in proportion to those given, of mean 1 over the samples of all processes; 0 if all are 0."""
    return counted * (len(counted) * world_size() / sum_over_processes(counted.sum()).clamp_min(1))


@torch.no_grad()
def _diagnostics(embeddings: dict[str, Tensor], is_moment: Tensor | None) -> dict[str, Tensor]:
    audio = embeddings["contrastive_audio"]
    counted = torch.ones(len(audio), dtype=torch.bool, device=audio.device)
    if is_moment is not None:
        # All samples where none is a moment: a NaN of one small batch would be that of the whole epoch.
        counted = (is_moment > 0) | ~(is_moment > 0).any()
    with torch.autocast(audio.device.type, enabled=False):
        clips = torch.stack([embeddings["contrastive_before"], embeddings["contrastive_after"]])
        # (2, B, D) clips with (B, D) sounds -> (2, B, B), the pairs that belong together on the diagonals.
        similarity = l2_normalize(clips) @ l2_normalize(audio).T
        own = torch.diag(counted)
        others = counted[:, None] & ~torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    forward, backward = state_change_logits(
        change_forward=embeddings["change_forward"],
        change_backward=embeddings["change_backward"],
        audio=embeddings["state_audio"],
    )
    return {
        "positive_similarity": similarity.masked_fill(~own, 0).sum() / (2 * own.sum()),
        "negative_similarity": similarity.masked_fill(~others, 0).sum() / (2 * others.sum()),
        "state_change_accuracy": _share(torch.cat([forward > 0, backward < 0]), counted.repeat(2)),
        "direction_accuracy": _share(forward > backward, counted),
    }


def _share(right: Tensor, counted: Tensor) -> Tensor:
    """Return the share of those counted that are right."""
    return (right & counted).sum().float() / counted.sum()
