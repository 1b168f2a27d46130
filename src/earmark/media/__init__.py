"""Media files: what a file holds, its sound in blocks, its frames at a fixed rate or at given times, and writing.

The first station of a sample's path: all that follows knows files only through this package, the only one that imports
PyAV. Every reader of a file uses one clock, in seconds: time 0 is the start of the presentation, that is the earliest
start of any picture or sound stream, or 0 where that is negative (the priming samples of a codec are not part of the
presentation; in transport and program streams a negative start is, since their clock begins anywhere and wraps). So the
times of sound and picture can be compared whatever container they come from and however late either begins.

Files are untrusted: only containers of media are opened, never playlists that point to other files or hosts, and
whatever FFmpeg finds wrong becomes a :class:`MediaError` or a reader's ``problem``. Damaged packets are skipped and
counted; the clock goes on by the file's time stamps. Whatever of picture or sound is left out is counted
and named there.
"""

from earmark.media.frames import FrameReader, iter_frames, read_frames
from earmark.media.interleaved import read_interleaved
from earmark.media.opening import MediaError
from earmark.media.packet_index import BYTES_PER_SAMPLE, PacketIndex
from earmark.media.prepared import Window, write_prepared
from earmark.media.probing import AudioStreamInfo, MediaInfo, VideoStreamInfo, declared, media_info
from earmark.media.sound import Resampler, SoundReader
from earmark.media.writing import VideoWriter

__all__ = [
    "BYTES_PER_SAMPLE",
    "AudioStreamInfo",
    "FrameReader",
    "MediaError",
    "MediaInfo",
    "PacketIndex",
    "Resampler",
    "SoundReader",
    "VideoStreamInfo",
    "VideoWriter",
    "Window",
    "declared",
    "iter_frames",
    "media_info",
    "read_frames",
    "read_interleaved",
    "write_prepared",
]
