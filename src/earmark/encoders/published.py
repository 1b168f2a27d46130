"""Published weights: which file an encoder starts from, where it is looked for, and which page offers it.

Nothing is downloaded here: the files are their authors', under their licences.
"""

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["PUBLISHED", "WEIGHTS_VARIABLE", "PublishedWeights", "find_weights"]

WEIGHTS_VARIABLE = "EARMARK_WEIGHTS"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        file: Its name, or its path in a package.
        trained_on: The method and the data, in words.
        page: The page that offers it.
        package: The Python package that holds it, where it comes in one.
    """

    file: str
    trained_on: str
    page: str
    package: str | None = None

    def installed(self) -> Path | None:
        """Return the file in the package, where that is installed; nothing of it is imported."""
        if self.package is None:
            return None
        try:
            path = Path(str(distribution(self.package).locate_file(self.file)))
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None


def _avid() -> PublishedWeights:
    return PublishedWeights(
        "AVID_Audioset_Cross-N1024_checkpoint.pth.tar",
        "AVID on AudioSet, which the published RepLAI runs start from",
        "https://github.com/facebookresearch/AVID-CMA, table 'Pre-trained models'",
    )


def _torchvision(file: str, weights: str) -> PublishedWeights:
    page = "https://pytorch.org/vision/stable/models.html, section 'Video Classification'"
    return PublishedWeights(file, f"torchvision's {weights}.KINETICS400_V1", page)


def _panns(file: str) -> PublishedWeights:
    return PublishedWeights(file, "PANNs on AudioSet", "https://zenodo.org/record/3987831")


PUBLISHED = {
    "avid_r2plus1d_18": _avid(),
    "avid_spec_cnn_9": _avid(),
    "r2plus1d_18": _torchvision("r2plus1d_18-91a641e6.pth", "R2Plus1D_18_Weights"),
    "r3d_18": _torchvision("r3d_18-b3b3357e.pth", "R3D_18_Weights"),
    "mc3_18": _torchvision("mc3_18-a90a0ba3.pth", "MC3_18_Weights"),
    "s3d": _torchvision("s3d-d76dad2f.pth", "S3D_Weights"),
    "mvit_v2_s": _torchvision("mvit_v2_s-ae3be167.pth", "MViT_V2_S_Weights"),
    "swin3d_t": _torchvision("swin3d_t-7615ae03.pth", "Swin3D_T_Weights"),
    "cnn6": _panns("Cnn6_mAP=0.343.pth"),
    "cnn10": _panns("Cnn10_mAP=0.380.pth"),
    "cnn14": _panns("Cnn14_mAP=0.431.pth"),
    "aisfx": PublishedWeights(
        "aisfx/models/checkpoint.pth",
        "aiSFX on libraries of sound effects, by A. B. Ma and A. Lerch, CC BY 4.0",
        "the package aisfx 0.1.2 of https://pypi.org/project/aisfx (pip install --no-deps aisfx==0.1.2: it pins old "
        "versions of what it imports, and nothing of it is imported here)",
        package="aisfx",
    ),
}


def find_weights(name: str, *, given: str | Path | None = None, folder: str | Path | None = None) -> Path:
    """Return the file that an encoder starts from.

    Args:
        name: Name of the encoder.
        given: The file, if the user named one; no other place is searched then.
        folder: Where published files are kept under their own names, searched after the installed package of those
            that come in one, and the file or folder that the environment variable ``EARMARK_WEIGHTS`` names.

    Raises:
        FileNotFoundError: If it is missing; the message says which file to download from where.

    Example:
        >>> find_weights("cnn14", given="no.pth")
        Traceback (most recent call last):
        ...
        FileNotFoundError: no weights for cnn14 at no.pth; published are Cnn14_mAP=0.431.pth (PANNs on AudioSet): ...
    """
    published = PUBLISHED.get(name)
    named = os.environ.get(WEIGHTS_VARIABLE)
    if published is not None and not given and (installed := published.installed()) is not None:
        return installed
    places = [Path(place).expanduser() for place in ([given] if given else [named, folder]) if place]
    for place in places:
        if place.is_file():
            return place
        if published is not None and not given and (place / published.file).is_file():
            return place / published.file
    looked = " or ".join(map(str, places)) or f"hand ({WEIGHTS_VARIABLE} names no file)"
    if published is None:
        raise FileNotFoundError(f"no weights for {name} at {looked}; none are published for it: name a file of yours")
    raise FileNotFoundError(
        f"no weights for {name} at {looked}; published are {published.file} ({published.trained_on}): fetch that file "
        f"from {published.page}"
    )
