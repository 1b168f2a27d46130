"""What a container's own sizes say of a file that is not whole: a recording not finished, a download or a copy cut.

FFmpeg says "Invalid data found when processing input" of a file of the MP4 family without its index, and takes what
else is cut as if it had been meant to end there.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from typing import BinaryIO

# What a file of the MP4 family may begin with; its index (moov) says where in the data (mdat) pictures and sound are.
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp"}
_BOXES_OF_MEDIA = {b"moov", b"mdat", b"moof"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Programs that write to a pipe put a size in the header that no file has: 0, 2^31 - 1 or 2^32 - 1, less what precedes.
_MAX_KNOWN_SIZE = 0x7FFF0000
# Many programs count a header to the data, or do not: that does not mean a cut.
_SLOPPY_BYTES = 64
_MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
_BOX_HEAD_BYTES = 8
_LONG_BOX_HEAD_BYTES = 16


def missing_index(path: Path) -> str | None:
    r"""Say what is missing of the index of a file that cannot be opened.

    Args:
        path: of the file.

    Returns:
        None if the index is there, or the file is not of the MP4 family.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.mp4"
        ...     _ = path.write_bytes(b"\0\0\0\x08ftyp" + b"\0\0\0\0mdat" + bytes(100))
        ...     missing_index(path)
        'the recording was not finished or is cut: its index (moov) is missing'
    """
    with path.open("rb") as stream:
        num_bytes = os.fstat(stream.fileno()).st_size
        found = False
        for name, end in _boxes(stream, num_bytes):
            found = True
            if name == b"moov":
                return "the recording was not finished or is cut: its index (moov) is cut" if end > num_bytes else None
    return "the recording was not finished or is cut: its index (moov) is missing" if found else None


def num_missing_bytes(path: Path) -> int:
    """Return how many bytes of a file's end are missing, by the sizes in its container.

    Args:
        path: of the file.

    Returns:
        0 if none are, or the container does not say.

    Example:
        >>> import tempfile, scipy.io.wavfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.wav"
        ...     scipy.io.wavfile.write(path, 8000, np.zeros(8000, np.int16))
        ...     _ = path.write_bytes(path.read_bytes()[:-6000])
        ...     num_missing_bytes(path)
        6000
    """
    with path.open("rb") as stream:
        num_bytes = os.fstat(stream.fileno()).st_size
        missing = _declared_end(stream, num_bytes) - num_bytes
    return missing if missing > _SLOPPY_BYTES else 0


def lacks_length(path: Path, magic: bytes) -> bool:
    """Return whether a RIFF file was written to a pipe, so that its header cannot know lengths.

    Args:
        path: of the file.
        magic: what it begins with, ``RIFF`` or ``RF64``; of others no answer is given.
    """
    with path.open("rb") as stream:
        head = stream.read(36)
    if head[:4] != magic:
        return False
    if magic == b"RF64":
        return head[12:16] == b"ds64" and head[28:] == bytes(8)
    return head[4:8] in (bytes(4), b"\xff\xff\xff\xff")


def _declared_end(stream: BinaryIO, num_bytes: int) -> int:
    """Return the byte at which the last part that a file begins is to end."""
    magic = stream.read(12)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        return _chunks_end(stream, 12, num_bytes, name=b"data")
    if magic[:4] == b"RIFF":  # AVI: beyond a gigabyte it has several
        return _chunks_end(stream, 0, num_bytes, name=b"RIFF")
    if magic[:4] == b"OggS":
        return _last_page_end(stream, num_bytes)
    if magic[:4] == _EBML:
        return _segment_end(stream)
    return max((end for name, end in _boxes(stream, num_bytes) if name in _BOXES_OF_MEDIA), default=0)


def _boxes(stream: BinaryIO, num_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each box of a file of the MP4 family."""
    position = 0
    while True:
        stream.seek(position)
        head = stream.read(_LONG_BOX_HEAD_BYTES)
        name = head[4:_BOX_HEAD_BYTES]
        if len(head) < _BOX_HEAD_BYTES or (not position and name not in _FIRST_BOXES):
            return
        size = int(unpack(">I", head[:4])[0])
        if size == 1 and len(head) == _LONG_BOX_HEAD_BYTES:  # then the size stands behind the name
            size = int(unpack(">Q", head[_BOX_HEAD_BYTES:])[0])
        if not (size >= _BOX_HEAD_BYTES and name.isascii()):  # 0: up to the end of the file
            yield name, num_bytes
            return
        position += size
        yield name, position


def _chunks_end(stream: BinaryIO, position: int, num_bytes: int, *, name: bytes) -> int:
    """Return the end of the last chunk of a name in a RIFF file; 0 where there is none or its size is unknown."""
    end = 0
    while position + 8 <= num_bytes:
        stream.seek(position)
        found, size = unpack("<4sI", stream.read(8))
        if found == name:
            end = position + 8 + size if 0 < size < _MAX_KNOWN_SIZE else 0
        if (found == name) == (name == b"data") or not size:  # the sound is one chunk; AVI is of nothing but its own
            return end
        position += 8 + size + size % 2
    return end


def _segment_end(stream: BinaryIO) -> int:
    """Return the end of Matroska's segment; 0 where it says none."""
    position = 0
    for name in (_EBML, _SEGMENT):
        stream.seek(position)
        head = stream.read(12)
        if head[:4] != name or len(head) < 12 or not head[4]:
            return 0
        length = 9 - head[4].bit_length()  # of the size: as many bytes as its first one begins with zeros, and one
        size = int.from_bytes(head[4 : 4 + length]) & ((1 << 7 * length) - 1)
        if size == (1 << 7 * length) - 1:  # unknown, as in what was streamed
            return 0
        position += 4 + length + size
    return position


def _last_page_end(stream: BinaryIO, num_bytes: int) -> int:
    """Return the end of the last page of an Ogg file."""
    start = max(0, num_bytes - _MAX_OGG_PAGE_BYTES)
    stream.seek(start)
    tail = stream.read()
    position = tail.rfind(b"OggS")
    if position < 0 or position + 27 > len(tail):
        return 0
    table = tail[position + 27 : position + 27 + tail[position + 26]]
    return start + position + 27 + tail[position + 26] + sum(table)
