"""Encoders of Hugging Face transformers: any video or audio model that returns tokens, such as VideoMAE, V-JEPA 2, AST.

In the path of a sample they turn model inputs into features, in place of `R2Plus1D` and `SpecCNN9`. They need the extra
``earmark[hf]``; transformers is imported when one is built. A model is described by its configuration alone: code that
comes with a model is not run.

Inputs are those of `earmark.clips.transforms`, and no processor of transformers is used:

- Clips are normalized by ImageNet's mean and deviation, as VideoMAE and V-JEPA 2 expect. VideoMAE takes one size and
  length only (published: 16 frames of 224 x 224), V-JEPA 2 one size and any even number of frames (published: 256 x 256
  or 384 x 384).
- Spectrograms of `earmark.clips.transforms.LogMel` are 125 frames of 80 bins, which a model that is trained from the
  start takes as they are, with ``max_length=125`` and ``num_mel_bins=80`` in its configuration. Published AST weights
  expect 1024 frames (10 ms apart) of 128 Kaldi filterbank bins, minus -4.268, over twice 4.569: compute those and load
  the model in your own loop.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from earmark.encoders.base import Encoder, require_clips, require_spectrograms

__all__ = ["HuggingFaceAudio", "HuggingFaceVideo"]


class _HuggingFace(Encoder):
    """What video and audio share: from a configuration, or a name, to a module and its tokens."""

    def __init__(
        self,
        *,
        model: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if (model is None) == (config is None):
            raise ValueError("give either model, a name or folder, or config, the values of a config.json")
        if pretrained and model is None:
            raise ValueError("pretrained weights need model, the name or folder that has them")
        self.config = _configuration(str(model) if config is None else config)
        whole = _pretrained(str(model), self.config) if pretrained else _random(self.config)
        self.input_name: str = whole.main_input_name
        self.model = _without_predictor(whole)
        self.output_dim = int(self.config.hidden_size)
        self.options = {"config": json.loads(self.config.to_json_string())}

    def recompute_activations(self) -> None:
        """Have transformers compute the activations of each layer again in the backward pass.

        Raises:
            ValueError: If it cannot for this model.
        """
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def initialise(self) -> None:
        """Draw all weights anew as transformers does for this model."""
        self.model.load_state_dict(_without_predictor(_random(self.config)).state_dict())

    def extra_repr(self) -> str:
        """Return the configuration: it says more than the modules, such as how many heads attend."""
        return json.dumps(self.options["config"], sort_keys=True)

    def _tokens(self, inputs: Tensor) -> Tensor:
        """Return the tokens (B, output_dim, number)."""
        tokens: Tensor = self.model(**{self.input_name: inputs}).last_hidden_state
        return tokens.transpose(1, 2)


class HuggingFaceVideo(_HuggingFace):
    """A video model of transformers; its feature is the mean of its tokens, after its last layer norm where it has one.

    Args:
        model: Name on the Hub, or a folder, with a config.json (and weights, for ``pretrained``).
        config: Instead of it, the values of a config.json: ``{"model_type": "videomae", ...}``.
        pretrained: Load the weights of `model` too; otherwise they are random.

    Raises:
        ValueError: If neither or both of model and config are given, or transformers does not know the model.
        ImportError: Without transformers.

    Sources: Tong et al., arXiv 2203.12602 (VideoMAE); Assran et al., arXiv 2506.09985 (V-JEPA 2).
    """

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the tokens (B, output_dim, number) of clips (B, 3, T, H, W).

        Raises:
            ValueError: If the clips are not of this shape, or not of the size that the model is made for.
        """
        require_clips(x)
        # V-JEPA 2 calls it crop_size, and would accept another size silently, with wrong positions.
        size = getattr(self.config, "image_size", None) or getattr(self.config, "crop_size", None)
        num_frames = getattr(self.config, "num_frames", None)
        tubelet = getattr(self.config, "tubelet_size", 1)
        tubelet = tubelet if isinstance(tubelet, int) else tubelet[0]
        if isinstance(size, int) and tuple(x.shape[3:]) != (size, size):
            raise ValueError(f"this {self.config.model_type} takes {size} x {size} pixels, got {tuple(x.shape[3:])}")
        if num_frames is not None and x.shape[2] != num_frames:
            raise ValueError(f"this {self.config.model_type} takes clips of {num_frames} frames, got {x.shape[2]}")
        if x.shape[2] % tubelet:
            raise ValueError(f"this {self.config.model_type} takes a multiple of {tubelet} frames, got {x.shape[2]}")
        return self._tokens(x.transpose(1, 2))

    def pool(self, features: Tensor) -> Tensor:
        """Return the mean over the tokens (B, output_dim)."""
        return features.mean(dim=2)


class HuggingFaceAudio(_HuggingFace):
    """An audio model of transformers that takes spectrograms; the mean of AST's two class tokens is its feature.

    Of a model of another type it is the mean of all tokens.

    Args:
        model: Name on the Hub, or a folder, with a config.json (and weights, for ``pretrained``).
        config: Instead of it, the values of a config.json: ``{"model_type": "audio-spectrogram-transformer", ...}``.
        pretrained: Load the weights of `model` too; otherwise they are random.

    Raises:
        ValueError: If neither or both of model and config are given, or transformers does not know the model.
        ImportError: Without transformers.

    Source: Gong et al., arXiv 2104.01778 (AST).
    """

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the tokens (B, output_dim, number) of log-mel spectrograms (B, 1, frames, F).

        Raises:
            ValueError: If the spectrograms are not of this shape, or not of the size that the model is made for.
        """
        require_spectrograms(x)
        expected = getattr(self.config, "max_length", None), getattr(self.config, "num_mel_bins", None)
        if None not in expected and tuple(x.shape[2:]) != expected:
            raise ValueError(
                f"this {self.config.model_type} takes {expected[0]} frames of {expected[1]} mel bins, got "
                f"{x.shape[2]} of {x.shape[3]}; a config.json with max_length={x.shape[2]} and "
                f"num_mel_bins={x.shape[3]} makes one that can be trained from the start"
            )
        return self._tokens(x.squeeze(1))

    def pool(self, features: Tensor) -> Tensor:
        """Return the mean over the class tokens, or over all tokens where there are none (B, output_dim)."""
        if self.config.model_type == "audio-spectrogram-transformer":
            features = features[:, :, :2]
        return features.mean(dim=2)


def _transformers() -> Any:
    try:
        import transformers
    except Exception as error:  # a broken installation may raise anything
        raise ImportError(
            "encoders of Hugging Face need transformers, which cannot be imported "
            f"({str(error).splitlines()[0]}); install earmark[hf]"
        ) from error
    return transformers


def _configuration(source: str | Mapping[str, Any]) -> Any:
    """Return the configuration of a name or folder, or of plain values, without what could bring in code."""
    transformers = _transformers()
    try:
        if isinstance(source, str):
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
            source = {**config.to_dict(), "model_type": config.model_type}
        # Attention kernels can be fetched by name, and private values name them.
        values = {key: value for key, value in source.items() if not key.startswith(("_", "attn_implementation"))}
        return transformers.AutoConfig.for_model(**values)
    except Exception as error:  # which types are raised differs from version to version
        name = source if isinstance(source, str) else source.get("model_type")
        raise ValueError(f"{name}: not a model that transformers knows ({error})") from error


def _random(config: Any) -> Any:
    return _transformers().AutoModel.from_config(config, trust_remote_code=False)


def _pretrained(name: str, config: Any) -> Any:
    """Return the model with its published weights; transformers alone would fill gaps with random ones."""
    model, report = _transformers().AutoModel.from_pretrained(
        name, config=config, trust_remote_code=False, output_loading_info=True
    )
    gaps = sorted([*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))])
    if gaps:
        raise ValueError(f"{name}: lacks {len(gaps)} of the encoder's weights, such as {gaps[0]}")
    return model.float()


def _without_predictor(model: Any) -> Any:
    """Return the encoder of a V-JEPA 2, whose predictor only its own pretraining needs; else the model itself."""
    return model.encoder if model.config.model_type == "vjepa2" else model
