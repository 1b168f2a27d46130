"""A strict reader of WebVTT."""

import re


def vtt_cues(text: str) -> list[tuple[int, int, str]]:
    """Parse WebVTT strictly: blocks between blank lines, the first of which is the signature."""
    signature, *blocks = text.split("\n\n")
    assert signature == "WEBVTT"
    cues = []
    stamp = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"
    for number, block in enumerate(blocks, start=1):
        name, timing, *payload = block.rstrip("\n").split("\n")
        assert name == str(number)
        match = re.fullmatch(f"{stamp} --> {stamp}", timing)
        assert match
        h1, m1, s1, t1, h2, m2, s2, t2 = map(int, match.groups())
        assert not re.search(r"[<>&]|-->", "".join(payload))
        times = (((h * 60 + m) * 60 + s) * 1000 + t for h, m, s, t in ((h1, m1, s1, t1), (h2, m2, s2, t2)))
        cues.append((*times, "\n".join(payload)))
    return cues
