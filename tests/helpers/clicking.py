"""Source videos whose picture lights up and whose sound clicks at known times."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from earmark.media import VideoWriter

RATE = 44100


def clicks(times: list[float], seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Quiet noise with sharp decaying bursts at given times."""
    rng = np.random.default_rng(seed)
    wave = 0.001 * rng.standard_normal(round(seconds * RATE))
    burst = rng.standard_normal(2000) * np.exp(-np.arange(2000) / 300)
    for at in times:
        start = round(at * RATE)
        wave[start : start + 2000] += 0.3 * burst
    return np.clip(wave, -1, 1).astype(np.float32)


def make_video(
    path: Path, *, seconds: float = 6.0, times: tuple[float, ...] = (1.52, 3.0, 4.24), sound: bool = True
) -> None:
    """Write an mp4 whose picture is white for 0.2 s, and whose sound clicks, at each of the times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, width=192, height=108, fps=25, sample_rate=RATE) as writer:
        for number in range(round(seconds * 25)):
            lit = any(at <= number / 25 < at + 0.2 for at in times)
            writer.write_frame(np.full((108, 192, 3), 235 if lit else 40, np.uint8))
        if sound:
            writer.write_sound(clicks(list(times), seconds))


def without_sound(path: Path, target: Path) -> None:
    """Copy only the picture of a file."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
