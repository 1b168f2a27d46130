r"""XDC: cross-modal deep clustering, where the clusters of each modality are the classes of the other.

Before each epoch the features of all samples are clustered by k-means, clips and sounds separately. With :math:`k^V_i,
k^A_i` the clusters that sample i is in, and linear classifiers :math:`W`, drawn anew for each epoch because the numbers
of clusters are arbitrary:

.. math::
    L = -\frac{1}{B} \sum_{i=1}^B \tfrac12 \Bigl[
        \tfrac12 \sum_{x \in \{b_i, c_i\}} \log \operatorname{softmax}(W_V f_V(x))_{k^A_i}
        + \log \operatorname{softmax}(W_A f_A(a_i))_{k^V_i} \Bigr]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.clips.sampling import sample_seed
from earmark.encoders import Encoder
from earmark.methods.base import Embeddings, Views, audio_features, clip_features
from earmark.methods.gathering import rank, sum_over_processes
from earmark.methods.kmeans import kmeans, kmeans_faiss
from earmark.methods.objectives import l2_normalize

KMEANS = {"torch": kmeans, "faiss": kmeans_faiss}


class XDC(nn.Module):
    """Classify clips by the clusters of their sounds, and sounds by the clusters of their clips.

    The paper has one clip per sample; here both clips around a moment are classified, and the mean of their features is
    clustered, so that the data are those of RepLAI. Features are L2-normalized before clustering. The loss is
    NaN until `start_epoch` has been called. The assignments are buffers, so a checkpoint holds them. Clusters and
    classifiers are functions of the seed, the epoch and the features, whatever else was drawn before.

    Args:
        video_encoder: (B, 3, T, H, W) -> features.
        audio_encoder: (B, 1, frames, F) -> features.
        num_samples: Size N of the data set.
        num_clusters: K, of each modality.
        num_iterations: Steps of k-means.
        engine: The implementation of k-means: ``torch`` or ``faiss``.
        seed: Seeds k-means and the classifiers; not negative.

    Raises:
        ValueError: If there are fewer than 2 clusters, or more than samples.

    Source: Alwassel et al., arXiv 1911.12667, section 3 (XDC); the alternation of clustering and classification with a
    new classifier is DeepCluster's, Caron et al., arXiv 1807.05520, equations 1 and 2.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> method = XDC(R2Plus1D(10, width=4), SpecCNN9(width=4), num_samples=4, num_clusters=2)
        >>> index, clips, audio = torch.arange(4), torch.randn(2, 4, 3, 4, 32, 32), torch.randn(4, 1, 125, 80)
        >>> new = method.start_epoch(0, lambda: [(index, method.embed(clips[0], clips[1], audio))])
        >>> method(clips[0], clips[1], audio, index=index)["loss"].backward()
    """

    uses_sound: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    views: ClassVar[Views] = "before_after"

    video_cluster: Tensor
    audio_cluster: Tensor

    def __init__(
        self,
        video_encoder: Encoder,
        audio_encoder: Encoder,
        *,
        num_samples: int,
        num_clusters: int = 64,
        num_iterations: int = 20,
        engine: Literal["torch", "faiss"] = "torch",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 2 <= num_clusters <= num_samples:
            raise ValueError(f"need from 2 clusters to as many as the {num_samples} samples, got {num_clusters}")
        self.num_clusters, self.num_iterations, self.engine, self.seed = num_clusters, num_iterations, engine, seed
        self.backbone = nn.ModuleDict({"video": video_encoder, "audio": audio_encoder})
        self.classifiers = nn.ModuleDict(
            {
                "video": nn.Linear(video_encoder.output_dim, num_clusters),
                "audio": nn.Linear(audio_encoder.output_dim, num_clusters),
            }
        )
        for kind in ("video", "audio"):
            self.register_buffer(f"{kind}_cluster", torch.full((num_samples,), -1))

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Return the features that are clustered, (B, output_dim) of ``video`` (the mean of both clips) and ``audio``.

        Args:
            video_before: Normalized clips (B, 3, T, H, W) before the moments.
            video_after: The same after them.
            audio: Log-mel spectrograms (B, 1, frames, F).
        """
        before, after = clip_features(self.backbone["video"], video_before, video_after).chunk(2)
        sound = audio_features(self.backbone["audio"], audio, num_samples=len(video_before))
        return {"video": (before + after) / 2, "audio": sound}

    @torch.no_grad()
    def start_epoch(self, epoch: int, embeddings: Callable[[], Iterable[Embeddings]]) -> list[nn.Parameter]:
        """Cluster all samples and draw new classifiers.

        Args:
            epoch: Counted from 0; with the method's seed it seeds clusters and classifiers.
            embeddings: Yields (index, what `embed` returns), over all processes every sample at least once.

        Returns:
            The parameters of the classifiers. Momentum that an optimizer holds for them belongs to those of the epoch
            before, and so does an average of them: the training loop resets both.

        Raises:
            ValueError: If a sample is missing or a feature is not finite.
        """
        seed_of_epoch = sample_seed(self.seed, epoch, 0)
        for kind, features in self._of_all_samples(embeddings()).items():
            clusters = getattr(self, f"{kind}_cluster")
            assigned = torch.zeros_like(clusters)
            if rank() == 0:  # one process's clusters for all
                assigned = KMEANS[self.engine](
                    l2_normalize(features), self.num_clusters, num_iterations=self.num_iterations, seed=seed_of_epoch
                )
            clusters.copy_(sum_over_processes(assigned))
        generator = torch.Generator().manual_seed(seed_of_epoch)
        for classifier in self.classifiers.values():
            assert isinstance(classifier, nn.Linear)
            classifier.weight.copy_(torch.randn(classifier.weight.shape, generator=generator) * 0.01)
            classifier.bias.zero_()
        return list(self.classifiers.parameters())

    def _of_all_samples(self, batches: Iterable[Embeddings]) -> dict[str, Tensor]:
        """Collect the embeddings of all processes, (N, output_dim) by modality."""
        num_samples = len(self.video_cluster)
        seen = torch.zeros(num_samples, 1, device=self.video_cluster.device)
        features = {
            kind: torch.zeros(num_samples, int(self.backbone[kind].output_dim), device=seen.device)  # type: ignore[arg-type]
            for kind in ("video", "audio")
        }
        for index, embedded in batches:
            seen[index] = 1
            for kind, rows in features.items():
                rows[index] = embedded[kind].float()
        seen = sum_over_processes(seen)
        if not seen.all():
            raise ValueError(f"{int((seen == 0).sum())} of {num_samples} samples have no embedding")
        return {kind: sum_over_processes(rows) / seen for kind, rows in features.items()}

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor,
        *,
        index: Tensor,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and the accuracies.

        Arguments and errors are those of `earmark.methods.base.Method.forward`; labels are not used.

        Returns:
            Scalars: ``loss`` and its parts ``video_loss`` and ``audio_loss``, and detached ``video_accuracy`` and
            ``audio_accuracy``, the share of clips and sounds whose cluster in the other modality is predicted.
        """
        clips = clip_features(self.backbone["video"], video_before, video_after)
        sounds = audio_features(self.backbone["audio"], audio, num_samples=len(video_before))
        video_loss, video_accuracy = _classify(self.classifiers["video"](clips), self.audio_cluster[index].repeat(2))
        audio_loss, audio_accuracy = _classify(self.classifiers["audio"](sounds), self.video_cluster[index])
        return {
            "loss": (video_loss + audio_loss) / 2,
            "video_loss": video_loss,
            "audio_loss": audio_loss,
            "video_accuracy": video_accuracy,
            "audio_accuracy": audio_accuracy,
        }


def _classify(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy, in float32 or float64, and the accuracy; targets of -1 make the loss NaN."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss = F.cross_entropy(logits, target, ignore_index=-1)
    return loss, (logits.detach().argmax(dim=1) == target).float().mean()
