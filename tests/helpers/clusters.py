"""Features that tell classes apart, in videos: shared by the tests of the probes."""

from collections.abc import Mapping

import numpy as np

CLASSES = {"verb": 3, "noun": 4}


def clusters(
    num_actions: int, num_clips: int = 2, seed: int = 0, *, spread: float = 1.0, classes: Mapping[str, int] = CLASSES
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Features (N, clips, D) around one corner for each class, labels, and videos: ten actions of a video.

    Each column has dimensions of its own, as many as classes.
    """
    rng = np.random.default_rng(seed)
    labels = {column: rng.integers(0, number, size=num_actions) for column, number in classes.items()}
    centres = np.concatenate([np.eye(number)[labels[column]] for column, number in classes.items()], axis=1)
    noise = rng.normal(size=(num_actions, num_clips, centres.shape[1]))
    videos = [f"P01_{number // 10:02d}" for number in range(num_actions)]
    return (2 * centres[:, None] + spread * noise).astype(np.float32), labels, videos
