"""Video encoders of torchvision, without their classifiers: r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v2_s, swin3d_t.

In the path of a sample they turn normalized clips into features, in place of `R2Plus1D`. They need the extra
``earmark[torchvision]``; torchvision is imported when one is built. Each takes over the parts of the torchvision model,
so its weights have torchvision's own names, and published files load as they are.

Published weights were trained on Kinetics-400, all but swin3d_t's on frames normalized by other means and deviations
than ImageNet's, which the transforms here use: close enough to start from, not to reproduce torchvision's accuracy.

Sources: Tran et al., arXiv 1711.11248 (r3d_18, mc3_18, r2plus1d_18); Xie et al., arXiv 1712.04851 (s3d); Li et al.,
arXiv 2112.01526 (mvit_v2_s); Liu et al., arXiv 2106.13230 (swin3d_t).

Example:
    >>> VideoResNet("r4d_18")
    Traceback (most recent call last):
    ...
    ValueError: name must be one of mc3_18, r2plus1d_18, r3d_18, got 'r4d_18'
"""

from typing import Any

from torch import Tensor, nn

from earmark.encoders.base import Encoder, require_clips

__all__ = ["S3D", "MViT", "Swin3D", "VideoResNet"]


class _MeanPooled(Encoder):
    """An encoder whose features are the mean of its map over time and place."""

    def pool(self, features: Tensor) -> Tensor:
        """Return the mean over time and place (B, output_dim)."""
        return features.flatten(2).mean(dim=2)


class _Transformer(Encoder):
    """An encoder of attention and linear layers."""

    def initialise(self) -> None:
        """Draw the linear layers from N(0, 0.02 squared), truncated, as torchvision does; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class VideoResNet(_MeanPooled):
    """A residual network of 18 layers: ``r3d_18``, ``mc3_18`` or ``r2plus1d_18``; global mean pool, 512 features.

    Args:
        model_name: Which one.

    Raises:
        ValueError: If there is no such network.
        ImportError: Without torchvision.
    """

    not_encoder = ("fc",)
    output_dim = 512

    def __init__(self, model_name: str) -> None:
        super().__init__()
        if model_name not in ("mc3_18", "r2plus1d_18", "r3d_18"):
            raise ValueError(f"name must be one of mc3_18, r2plus1d_18, r3d_18, got {model_name!r}")
        model = _torchvision_model(model_name)
        self.stem = model.stem
        self.layer1, self.layer2, self.layer3, self.layer4 = model.layer1, model.layer2, model.layer3, model.layer4

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (B, 512, T / 8, H / 16, W / 16) of clips (B, 3, T, H, W), lengths rounded up.

        Without a stride in time (mc3_18) the map has all T.

        Raises:
            ValueError: If the clips are not of this shape.
        """
        require_clips(x)
        for stage in (self.stem, self.layer1, self.layer2, self.layer3, self.layer4):
            x = self.run_stage(stage, x)
        return x


class S3D(_MeanPooled):
    """The separable 3-D network ``s3d``; global mean pool, 1024 features.

    Raises:
        ImportError: Without torchvision.
    """

    not_encoder = ("classifier",)
    output_dim = 1024

    def __init__(self) -> None:
        super().__init__()
        self.features = _torchvision_model("s3d").features

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (B, 1024, T / 8, H / 32, W / 32) of clips (B, 3, T, H, W).

        Raises:
            ValueError: If the clips are not of this shape, or too small for the pools.
        """
        require_clips(x)
        if x.shape[2] < 5 or min(x.shape[3:]) < 17:
            raise ValueError(f"s3d needs at least 5 frames of 17 x 17, got {tuple(x.shape[2:])}")
        for stage in self.features:
            x = self.run_stage(stage, x)
        return x


class MViT(_Transformer):
    """The multiscale vision transformer ``mvit_v2_s``; its class token is the feature, of 768 values.

    Its relative positions were learned on clips of 16 frames of 224 x 224 and are interpolated for other sizes.

    Raises:
        ImportError: Without torchvision.
    """

    not_encoder = ("head",)
    output_dim = 768

    def __init__(self) -> None:
        super().__init__()
        model = _torchvision_model("mvit_v2_s")
        self.conv_proj, self.pos_encoding = model.conv_proj, model.pos_encoding
        self.blocks, self.norm = model.blocks, model.norm

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the tokens (B, 768, 1 + places) of clips (B, 3, T, H, W); the class token comes first.

        Raises:
            ValueError: If the clips are not of this shape.
        """
        require_clips(x)
        patches = self.conv_proj(x)
        tokens = self.pos_encoding(patches.flatten(2).transpose(1, 2))
        size = tuple(patches.shape[2:])  # torchvision's own forward takes 16 x 224 x 224 for granted here
        for block in self.blocks:
            tokens, size = self.run_stage(block, tokens, size)
        normed: Tensor = self.norm(tokens)
        return normed.transpose(1, 2)

    def pool(self, features: Tensor) -> Tensor:
        """Return the class token (B, 768)."""
        return features[:, :, 0]


class Swin3D(_Transformer, _MeanPooled):
    """The shifted-window video transformer ``swin3d_t``; global mean pool, 768 features.

    Raises:
        ImportError: Without torchvision.
    """

    not_encoder = ("head",)
    output_dim = 768

    def __init__(self) -> None:
        super().__init__()
        model = _torchvision_model("swin3d_t")
        self.patch_embed, self.features, self.norm = model.patch_embed, model.features, model.norm

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (B, 768, T / 2, H / 32, W / 32) of clips (B, 3, T, H, W), lengths rounded up.

        Raises:
            ValueError: If the clips are not of this shape.
        """
        require_clips(x)
        x = self.patch_embed(x)
        for stage in self.features:
            x = self.run_stage(stage, x)
        normed: Tensor = self.norm(x)  # channels last
        return normed.movedim(-1, 1)


def _torchvision_model(name: str) -> Any:
    """Build a model of torchvision with random weights."""
    try:
        from torchvision.models import video
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError, among others
        raise ImportError(
            f"the encoder {name} needs torchvision, which cannot be imported ({str(error).splitlines()[0]}); "
            "install earmark[torchvision] with the torchvision that belongs to your torch"
        ) from error
    return getattr(video, name)(weights=None)
