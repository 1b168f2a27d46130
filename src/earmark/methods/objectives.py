r"""The objectives as pure functions of embeddings: RepLAI's two, and those of the methods it is compared with.

In the path of a sample they come after the heads; what they return is what the training loop minimizes. They need
nothing but torch. All compute in float32, whatever the autocast state, or in float64 if they are given float64.

Throughout, :math:`\hat x = x / \lVert x \rVert`. A zero vector has no direction: it keeps similarity 0 with everything
and receives no gradient. NaN in an embedding makes the loss NaN, so that the caller can see it.

Those that compare samples with one another take `gather`, which concatenates a tensor (B, ...) over processes to (M,
...), and `rank`, this process's place in the concatenation. The B samples of this process are then the anchors, the M
samples of all processes the candidates, and the mean over processes of the loss is the loss of one process on the
global batch. With `earmark.methods.gathering.gather_with_gradient` the same holds for the gradients. With
`earmark.methods.gathering.gather_without_gradient`, as in the original code, candidates get no gradient, not even this
process's own; that gradient, too, is the same for any number of processes.

Where a loss takes `weights` (B,), the terms of which sample i is the anchor count :math:`w_i` times. The weights of all
processes' samples should have the mean 1, for the loss to be a weighted mean. A sample of weight 0 is left out: it has
no terms of its own, and is no candidate of the others.
"""

import math
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
    temperature: float | Tensor = 0.07,
    queue: Tensor | None = None,
    weights: Tensor | None = None,
    gather: Gather | None = None,
    rank: int = 0,
) -> Tensor:
    r"""Contrast the clips before and after each moment with the moments' sounds, in both directions (AVC).

    With before clips :math:`b`, after clips :math:`c` and sounds :math:`a`:

    .. math::
        \ell(x, i, y) = -\log \frac{\exp(\hat x \cdot \hat y_i / \tau)}{\sum_{j=1}^M \exp(\hat x \cdot \hat y_j / \tau)}

        L_{AVC} = \frac{1}{4B} \sum_{i=1}^B \ell(b_i, i, a) + \ell(c_i, i, a) + \ell(a_i, i, b) + \ell(a_i, i, c)

    A sound is contrasted with the before clips and, separately, with the after clips. A queue of K past samples
    adds K terms to each sum over j, as in MoCo (He et al., arXiv 1911.05722, equation 1).

    Args:
        video_before: Embeddings (B, D) of the clips before the moments.
        video_after: Embeddings (B, D) of the clips after.
        audio: Embeddings (B, D) of the sounds.
        temperature: The positive :math:`\tau`; a tensor, for a learned temperature, is not checked.
        queue: Embeddings (3, K, D) of the before clips, after clips and sounds of past samples, further negatives.
        weights: Of the samples (B,), see the module's text; None: 1 each.
        gather: Concatenates over processes (see the module's text); None where one process holds all samples.
        rank: Rank of this process; its samples are rows rank * B to rank * B + B - 1 of what `gather` returns.

    Returns:
        Scalar loss; log (M + K) at chance.

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
    _check_weights(weights, len(audio))
    with torch.autocast(audio.device.type, enabled=False):
        before, after, sound = (l2_normalize(x) for x in (video_before, video_after, audio))
        all_before, all_after, all_sound = before, after, sound
        if gather is not None:
            # One collective for the three.
            all_before, all_after, all_sound = gather(torch.stack([before, after, sound], dim=1)).unbind(dim=1)
        if queue is not None:
            past = l2_normalize(queue)
            all_before, all_after, all_sound = (
                torch.cat(rows) for rows in zip((all_before, all_after, all_sound), past, strict=True)
            )
        target = torch.arange(len(sound), device=sound.device) + rank * len(sound)
        left_out = _left_out(weights, gather, num_past=0 if queue is None else queue.shape[1])
        pairs = ((before, all_sound), (after, all_sound), (sound, all_before), (sound, all_after))
        # (B, D) anchors against (M + K, D) candidates.
        losses = [
            _contrast(anchors @ candidates.T / temperature, target, weights, left_out) for anchors, candidates in pairs
        ]
        return torch.stack(losses).mean()


def audible_state_change_loss(
    *,
    change_forward: Tensor,
    change_backward: Tensor,
    audio: Tensor,
    temperature: float | Tensor = 0.2,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Tell the change of the visual state from its reverse by the sound (AStC).

    With the change :math:`d_i` (after minus before), the reverse :math:`d'_i` (before minus after), the sound
    :math:`a_i` and the logistic function :math:`\sigma`:

    .. math::
        L_{AStC} = -\frac{1}{2B} \sum_{i=1}^B \log \sigma(\hat d_i \cdot \hat a_i / \tau)
                   + \log\bigl(1 - \sigma(\hat d'_i \cdot \hat a_i / \tau)\bigr)

    It compares only within a sample, so nothing is gathered over processes.

    Args:
        change_forward: Embeddings (B, D) of after minus before.
        change_backward: Embeddings (B, D) of before minus after.
        audio: Embeddings (B, D) of the sounds.
        temperature: The positive :math:`\tau`; a tensor, for a learned temperature, is not checked.
        weights: Of the samples (B,), see the module's text; None: 1 each.

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
    _check_weights(weights, len(audio))
    # softplus(-x) = -log sigmoid(x), without overflow.
    return (_weighted_mean(F.softplus(-forward), weights) + _weighted_mean(F.softplus(backward), weights)) / 2


def state_change_logits(
    *, change_forward: Tensor, change_backward: Tensor, audio: Tensor, temperature: float | Tensor = 0.2
) -> tuple[Tensor, Tensor]:
    """Return the logits (B,) of the forward and of the reversed change that the state change loss is made of.

    Arguments and errors are those of `audible_state_change_loss`.
    """
    _check(temperature, change_forward=change_forward, change_backward=change_backward, audio=audio)
    with torch.autocast(audio.device.type, enabled=False):
        sound = l2_normalize(audio)
        forward = (l2_normalize(change_forward) * sound).sum(dim=1) / temperature
        backward = (l2_normalize(change_backward) * sound).sum(dim=1) / temperature
        return forward, backward


def contrastive_state_change_loss(
    *,
    change_forward: Tensor,
    change_backward: Tensor,
    audio: Tensor,
    temperature: float | Tensor = 0.2,
    weights: Tensor | None = None,
    gather: Gather | None = None,
    rank: int = 0,
) -> Tensor:
    r"""Tell the change that belongs to a sound from its reverse and from the changes of other samples.

    The state change loss with more negatives, an option that the paper does not have. With the notation of
    `audible_state_change_loss`:

    .. math::
        L = -\frac{1}{2B} \sum_{i=1}^B
            \log \frac{\exp(\hat a_i \cdot \hat d_i / \tau)}
                      {\sum_{j=1}^M \exp(\hat a_i \cdot \hat d_j / \tau) + \exp(\hat a_i \cdot \hat d'_j / \tau)}
          + \log \frac{\exp(\hat d_i \cdot \hat a_i / \tau)}{\sum_{j=1}^M \exp(\hat d_i \cdot \hat a_j / \tau)}

    Args:
        change_forward: Embeddings (B, D) of after minus before.
        change_backward: Embeddings (B, D) of before minus after.
        audio: Embeddings (B, D) of the sounds.
        temperature: The positive :math:`\tau`; a tensor, for a learned temperature, is not checked.
        weights: Of the samples (B,), see the module's text; None: 1 each.
        gather: Concatenates over processes (see the module's text); None where one process holds all samples.
        rank: Rank of this process: its place in the concatenation.

    Returns:
        Scalar loss; (log M + log 2M) / 2 at chance.

    Raises:
        ValueError: If shapes differ, are not (B, D), B is 0, or the temperature is not positive.

    Source: after InfoNCE (van den Oord et al., arXiv 1807.03748, equation 4), over the changes of arXiv 2209.13583.

    Example:
        >>> same = torch.ones(4, 8)
        >>> loss = contrastive_state_change_loss(change_forward=same, change_backward=same, audio=same)
        >>> round((2 * loss).exp().item(), 4)
        32.0
    """
    _check(temperature, change_forward=change_forward, change_backward=change_backward, audio=audio)
    _check_weights(weights, len(audio))
    with torch.autocast(audio.device.type, enabled=False):
        forward, backward, sound = (l2_normalize(x) for x in (change_forward, change_backward, audio))
        all_forward, all_backward, all_sound = forward, backward, sound
        if gather is not None:
            all_forward, all_backward, all_sound = gather(torch.stack([forward, backward, sound], dim=1)).unbind(dim=1)
        target = torch.arange(len(sound), device=sound.device) + rank * len(sound)
        left_out = _left_out(weights, gather)
        all_changes = torch.cat([all_forward, all_backward])
        twice = None if left_out is None else left_out.repeat(2)
        of_sound = _contrast(sound @ all_changes.T / temperature, target, weights, twice)
        of_change = _contrast(forward @ all_sound.T / temperature, target, weights, left_out)
        return (of_sound + of_change) / 2


def nt_xent_loss(
    *,
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor = 0.1,
    weights: Tensor | None = None,
    gather: Gather | None = None,
    rank: int = 0,
) -> Tensor:
    r"""Contrast two views of each sample with all other views (NT-Xent, the loss of SimCLR).

    With the 2M views :math:`z` of the global batch, :math:`p(i)` the other view of view i's sample:

    .. math::
        L = -\frac{1}{2B} \sum_{i=1}^{2B} \log
            \frac{\exp(\hat z_i \cdot \hat z_{p(i)} / \tau)}{\sum_{j \ne i} \exp(\hat z_i \cdot \hat z_j / \tau)}

    Args:
        first: Embeddings (B, D) of one view of each sample.
        second: Embeddings (B, D) of the other.
        temperature: The positive :math:`\tau`; a tensor, for a learned temperature, is not checked.
        weights: Of the samples (B,), see the module's text; None: 1 each.
        gather: Concatenates over processes (see the module's text); None where one process holds all samples.
        rank: Rank of this process: its place in the concatenation.

    Returns:
        Scalar loss; log (2M - 1) at chance, 0 for a single sample.

    Raises:
        ValueError: If shapes differ, are not (B, D), B is 0, or the temperature is not positive.

    Source: Chen et al., arXiv 2002.05709, equation 1; on video, Qian et al., arXiv 2008.03800, equation 1.

    Example:
        >>> same = torch.ones(4, 8)
        >>> round(nt_xent_loss(first=same, second=same).exp().item(), 4)
        7.0
    """
    _check(temperature, first=first, second=second)
    _check_weights(weights, len(first))
    with torch.autocast(first.device.type, enabled=False):
        views = [l2_normalize(first), l2_normalize(second)]
        all_first, all_second = views
        if gather is not None:
            all_first, all_second = gather(torch.stack(views, dim=1)).unbind(dim=1)
        own = torch.arange(len(first), device=first.device) + rank * len(first)
        itself = torch.cat([own, own + len(all_first)])
        logits = torch.cat(views) @ torch.cat([all_first, all_second]).T / temperature
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        left_out = _left_out(weights, gather)
        if weights is None or left_out is None:
            return F.cross_entropy(logits, itself.roll(len(first)))
        return _contrast(logits, itself.roll(len(first)), weights.repeat(2), left_out.repeat(2))


def noise_contrastive_loss(
    *, positive_logits: Tensor, negative_logits: Tensor, log_partition: float | Tensor
) -> Tensor:
    r"""Tell each sample's own logit from those of noise (noise-contrastive estimation).

    With the logit :math:`s_i` of a sample and its target, those of K targets drawn at random, :math:`s_{ik}`, and the
    mean :math:`Z` of :math:`\exp(s)` over such draws, :math:`c = \log(K Z)`:

    .. math::
        L = -\frac1B \sum_{i=1}^B \Bigl[ \log \sigma(s_i - c) + \sum_{k=1}^K \log \sigma(c - s_{ik}) \Bigr]

    Args:
        positive_logits: (B,), similarity over temperature.
        negative_logits: (B, K), the same with targets drawn uniformly.
        log_partition: :math:`\log Z`, a constant.

    Returns:
        Scalar loss.

    Raises:
        ValueError: If the shapes are not (B,) and (B, K) with B and K above 0.

    Source: Wu et al., arXiv 1805.01978, section 3.2, as Morgado et al., arXiv 2004.12943, use it in their code.

    Example:
        >>> loss = noise_contrastive_loss(
        ...     positive_logits=torch.zeros(3), negative_logits=torch.zeros(3, 1), log_partition=0.0
        ... )
        >>> round(loss.item(), 4)  # 2 log 2
        1.3863
    """
    shapes = tuple(positive_logits.shape), tuple(negative_logits.shape)
    if positive_logits.ndim != 1 or negative_logits.ndim != 2 or len(positive_logits) != len(negative_logits):
        raise ValueError(f"logits must have the shapes (B,) and (B, K), got {shapes[0]} and {shapes[1]}")
    if not negative_logits.numel():
        raise ValueError(f"need at least one sample and one negative, got {shapes[0]} and {shapes[1]}")
    with torch.autocast(positive_logits.device.type, enabled=False):
        positive, negative = (x if x.dtype == torch.float64 else x.float() for x in (positive_logits, negative_logits))
        offset = log_partition + math.log(negative.shape[1])
        return (F.softplus(offset - positive) + F.softplus(negative - offset).sum(dim=1)).mean()


def _left_out(weights: Tensor | None, gather: Gather | None, *, num_past: int = 0) -> Tensor | None:
    """Return which candidates have the weight 0, bool (M + K,), of which the K of the queue have none."""
    if weights is None:
        return None
    every = weights if gather is None else gather(weights)
    return torch.cat([every == 0, every.new_zeros(num_past, dtype=torch.bool)])


def _contrast(logits: Tensor, target: Tensor, weights: Tensor | None, left_out: Tensor | None) -> Tensor:
    if weights is None or left_out is None:
        return F.cross_entropy(logits, target)
    # Not in the rows of samples that are left out themselves, whose target would be masked, and their loss infinite.
    masked = left_out & (weights > 0)[:, None]
    return _weighted_mean(F.cross_entropy(logits.masked_fill(masked, -torch.inf), target, reduction="none"), weights)


def _weighted_mean(terms: Tensor, weights: Tensor | None) -> Tensor:
    return terms.mean() if weights is None else (terms * weights).mean()


def l2_normalize(x: Tensor) -> Tensor:
    """Scale vectors (..., D) to length 1, in float32 or float64; zero vectors stay zero and get a zero gradient.

    Example:
        >>> l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.div(x, length.masked_fill(length < 1e-12, torch.inf))


def _check_weights(weights: Tensor | None, num_samples: int) -> None:
    if weights is not None and weights.shape != (num_samples,):
        raise ValueError(f"need a weight of each of the {num_samples} samples, got {tuple(weights.shape)}")


def _check(temperature: float | Tensor, **embeddings: Tensor) -> None:
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    shapes = {name: tuple(x.shape) for name, x in embeddings.items()}
    shape = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(shape) != 2 or shape[0] == 0:
        raise ValueError(f"embeddings must have one shape (B, D) with B > 0, got {shapes}")
