"""Sound of clicks at known times."""

import numpy as np
from numpy.typing import NDArray

RATE = 8000


def clicks(*times_seconds: float, duration_seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """Soft noise with short loud bursts."""
    rng = np.random.default_rng(7)
    wave = 0.001 * rng.standard_normal(round(duration_seconds * rate))
    for time in times_seconds:
        start = round(time * rate)
        wave[start : start + 80] += 0.5 * rng.standard_normal(len(wave[start : start + 80]))
    return wave.astype(np.float32)
