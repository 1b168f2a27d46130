r"""The two objectives as pure functions of embeddings.

In the path of a sample they come after the heads; their weighted sum is what the training loop minimises.
Both compute in float32, whatever the autocast state, or in float64 if they are given float64.

Throughout, :math:`\hat x = x / \lVert x \rVert`. A zero vector has no direction: it keeps similarity 0 with everything
and receives no gradient. NaN in an embedding makes the loss NaN, so that the caller can see it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name

Gather = Callable[[Tensor], Tensor]


def audio_visual_correspondence_loss(
    *,
    video_before: Tensor,
    video_after: Tensor,
    audio: Tensor,
    temperature: float = 0.07,
    gather: Gather | None = None,
    rank: int = 0,
) -> Tensor:
    r"""Contrast the clips before and after each moment with the moments' sounds, in both directions (AVC).

    With before clips :math:`b`, after clips :math:`c` and sounds :math:`a`:

    .. math::
        \ell(x, i, y) = -\log \frac{\exp(\hat x \cdot \hat y_i / \tau)}{\sum_{j=1}^M \exp(\hat x \cdot \hat y_j / \tau)}

        L_{AVC} = \frac{1}{4B} \sum_{i=1}^B \ell(b_i, i, a) + \ell(c_i, i, a) + \ell(a_i, i, b) + \ell(a_i, i, c)

    A sound is contrasted with the before clips and, apart from them, with the after clips.

    With `gather` the B samples of this process are the anchors, the M samples of all processes the candidates. Then the
    mean over processes of this loss is the loss of one process on the global batch, and so are its gradients if
    `gather` passes them.

    Args:
        video_before: Embeddings (B, D) of the clips before the moments.
        video_after: Embeddings (B, D) of the clips after.
        audio: Embeddings (B, D) of the sounds.
        temperature: The positive :math:`\tau`.
        gather: Concatenates a tensor (B, ...) over processes to (M, ...), `earmark.distributed.gather_with_gradient`;
            None where the B samples are all.
        rank: This process's place in the concatenation; its samples are rows rank * B to rank * B + B - 1.

    Returns:
        Scalar loss; log M at chance.

    Raises:
        ValueError: If shapes differ, are not (B, D), B is 0, or the temperature is not positive.

    Source: the paper, arXiv 2209.13583, section 3, and the original code.

    Example:
        >>> same = torch.ones(8, 16)
        >>> loss = audio_visual_correspondence_loss(video_before=same, video_after=same, audio=same)
        >>> round(loss.exp().item(), 4)
        8.0
    """
    _check(temperature, video_before=video_before, video_after=video_after, audio=audio)
    with torch.autocast(audio.device.type, enabled=False):
        before, after, sound = (_directions(x) for x in (video_before, video_after, audio))
        all_before, all_after, all_sound = before, after, sound
        if gather is not None:
            # One collective for the three.
            all_before, all_after, all_sound = gather(torch.stack([before, after, sound], dim=1)).unbind(dim=1)
        target = torch.arange(len(sound), device=sound.device) + rank * len(sound)
        pairs = ((before, all_sound), (after, all_sound), (sound, all_before), (sound, all_after))
        # (B, D) anchors against (M, D) candidates.
        losses = [F.cross_entropy(anchors @ candidates.T / temperature, target) for anchors, candidates in pairs]
        return torch.stack(losses).mean()


def audible_state_change_loss(
    *, change_forward: Tensor, change_backward: Tensor, audio: Tensor, temperature: float = 0.2
) -> Tensor:
    r"""Tell the change of the visual state from its reverse, by the sound (AStC).

    With the change :math:`d_i` (after minus before), the reverse :math:`d'_i` (before minus after), the sound
    :math:`a_i` and the logistic function :math:`\sigma`:

    .. math::
        L_{AStC} = -\frac{1}{2B} \sum_{i=1}^B \log \sigma(\hat d_i \cdot \hat a_i / \tau)
                   + \log\bigl(1 - \sigma(\hat d'_i \cdot \hat a_i / \tau)\bigr)

    It compares only within a sample, so it needs no gathering over processes.

    Args:
        change_forward: Embeddings (B, D) of after minus before.
        change_backward: Embeddings (B, D) of before minus after.
        audio: Embeddings (B, D) of the sounds.
        temperature: The positive :math:`\tau`.

    Returns:
        Scalar loss; log 2 at chance.

    Raises:
        ValueError: If shapes differ, are not (B, D), B is 0, or the temperature is not positive.

    Source: the paper, arXiv 2209.13583, section 3, and the original code.

    Example:
        >>> same = torch.ones(8, 16)
        >>> loss = audible_state_change_loss(change_forward=same, change_backward=-same, audio=same, temperature=1.0)
        >>> round(loss.item(), 4)  # log(1 + exp(-1))
        0.3133
    """
    forward, backward = state_change_logits(
        change_forward=change_forward, change_backward=change_backward, audio=audio, temperature=temperature
    )
    # softplus(-x) = -log sigmoid(x), without overflow.
    return (F.softplus(-forward).mean() + F.softplus(backward).mean()) / 2


def state_change_logits(
    *, change_forward: Tensor, change_backward: Tensor, audio: Tensor, temperature: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Return the logits (B,) of the forward and of the reversed change that the state change loss is made of.

    Arguments and errors are those of `audible_state_change_loss`.
    """
    _check(temperature, change_forward=change_forward, change_backward=change_backward, audio=audio)
    with torch.autocast(audio.device.type, enabled=False):
        sound = _directions(audio)
        forward = (_directions(change_forward) * sound).sum(dim=1) / temperature
        backward = (_directions(change_backward) * sound).sum(dim=1) / temperature
        return forward, backward


def _directions(x: Tensor) -> Tensor:
    """Scale rows (B, D) to length 1, in float32 or float64; zero rows stay zero and get a zero gradient."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.div(x, length.masked_fill(length < 1e-12, torch.inf))


def _check(temperature: float, **embeddings: Tensor) -> None:
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    shapes = {name: tuple(x.shape) for name, x in embeddings.items()}
    shape = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(shape) != 2 or shape[0] == 0:
        raise ValueError(f"embeddings must have one shape (B, D) with B > 0, got {shapes}")
