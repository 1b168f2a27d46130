"""Parts of Ego4D's clips: they keep the point of no return, and frames are the published ones where that is asked."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from earmark.clips.state_change_parts import (
    NUM_KEYFRAMES,
    drawn_part,
    nearest_place,
    published_frames,
    published_part,
    spread_times,
    whole_clip,
)
from earmark.datasets import StateChangeRecord


def record(name: str = "x", *, start: int = 300, length: int = 240, pnr: int | None = 420) -> StateChangeRecord:
    """Return a clip of a video of 30 frames per second."""
    stop = start + length
    return StateChangeRecord(name, "v", start / 30, stop / 30, start, stop, 30.0, pnr is not None, pnr)


def slow_published_frames(start: int, stop: int) -> list[int]:
    """Ego4D's rule, frame by frame."""
    for step in (math.ceil((stop - start) / 16), math.floor((stop - start) / 16)):
        chosen = []
        for frame in range(start, stop):
            if frame % step == 0:
                chosen.append(frame)
        if len(chosen) >= 16:
            return chosen[:16]
    raise AssertionError("no step gives 16 frames")


def test_frames_by_divisibility_equal_a_slow_loop_whether_they_fall_into_16_bins_or_17() -> None:
    num_candidates = set()
    for length in (16, 17, 31, 32, 33, 150, 160, 199, 224, 239, 240, 241, 256, 257):
        for start in range(0, 40):
            frames = published_frames(start, start + length)
            assert frames.tolist() == slow_published_frames(start, start + length)
            assert len(frames) == NUM_KEYFRAMES
            step = frames[1] - frames[0]
            num_candidates.add(sum(frame % step == 0 for frame in range(start, start + length)))
    assert {16, 17} <= num_candidates
    # 240 frames from a number that 15 divides: 16 of them; from frame 1 on the sixteenth is the very last one
    assert published_frames(600, 840)[[0, -1]].tolist() == [600, 825]
    assert published_frames(601, 841)[[0, -1]].tolist() == [615, 840]
    # 15 gives 15 of 239 frames from 601 on, so 14 is taken, and what follows the sixteenth is not shown
    assert published_frames(601, 839)[[0, -1]].tolist() == [602, 812]


def test_a_clip_of_fewer_than_16_frames_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="short: frames 300 to 315 are 15, fewer than 16"):
        published_part(record("short", length=15, pnr=None))


@pytest.mark.parametrize("pnr", [300, 301, 360, 420, 539, 540, None])
def test_a_drawn_part_is_5_to_8_s_long_lies_in_its_clip_and_keeps_the_point_of_no_return(pnr: int | None) -> None:
    clip = record(pnr=pnr)
    parts = [drawn_part(clip, seed=seed, number=number) for seed in range(150) for number in range(2)]
    lengths = np.array([part.stop_seconds - part.start_seconds for part in parts])
    assert 5 - 1e-9 <= lengths.min() < 5.2
    assert 7.8 < lengths.max() <= 8 + 1e-9
    for part in parts:
        assert clip.start_seconds - 1e-9 <= part.start_seconds
        assert part.stop_seconds <= clip.stop_seconds + 1e-9
        assert part.place_seconds == spread_times(part.start_seconds, part.stop_seconds)
        if clip.pnr_seconds is None:
            assert part.keyframe == -1
            continue
        assert part.start_seconds - 1e-9 <= clip.pnr_seconds <= part.stop_seconds + 1e-9
        step = (part.stop_seconds - part.start_seconds) / 16
        assert abs(part.place_seconds[part.keyframe] - clip.pnr_seconds) <= step / 2 + 1e-9
    assert len({(part.start_seconds, part.stop_seconds) for part in parts}) > 200


def test_a_draw_depends_on_seed_number_and_name_alone() -> None:
    first = drawn_part(record("x"), seed=0, number=0)
    assert drawn_part(record("x"), seed=0, number=0) == first
    others = [drawn_part(record("x"), seed=1, number=0), drawn_part(record("x"), seed=0, number=1)]
    others.append(dataclasses.replace(drawn_part(record("y"), seed=0, number=0), record=first.record))
    assert all(other != first for other in others)


def test_a_clip_shorter_than_a_part_is_taken_whole() -> None:
    clip = record(length=60, pnr=330)
    part = drawn_part(clip, seed=0, number=0)
    assert (part.start_seconds, part.stop_seconds) == (clip.start_seconds, clip.stop_seconds)


def test_of_equally_near_places_the_first_is_taken_whatever_rounding_says() -> None:
    assert nearest_place([0, 15, 30], 22.5) == 1
    times = np.arange(16) * 0.1
    assert [nearest_place(times, (a + b) / 2) for a, b in pairwise(times)] == list(range(15))


def test_a_perfect_place_of_a_whole_clip_is_at_most_half_a_step_off() -> None:
    for pnr in range(300, 541):
        part = whole_clip(record(pnr=pnr))
        frame = part.place_frames[part.keyframe]
        assert abs(frame - pnr) <= 7.5 + 1e-9
        assert part.record.pnr_seconds == pytest.approx(pnr / 30)
    assert whole_clip(record()).place_frames[:2] == pytest.approx((307.5, 322.5))


def test_the_published_part_begins_between_8_s_minus_its_length_and_1_s() -> None:
    clip = record(pnr=None)
    parts = [published_part(clip, seed=seed) for seed in range(300)]
    offsets = np.array([part.start_seconds for part in parts]) - clip.start_seconds
    stops = np.array([part.stop_seconds for part in parts])
    assert (stops <= clip.stop_seconds + 1e-9).all()
    assert offsets.min() >= 0
    assert 2 < offsets.max() <= 3  # a part of 5 s that begins at 3 s: what was meant as the end of the range
    # a part of length L that was not cut begins at 8 - L at the latest, or, if L is above 7 s, at 1 s
    uncut = stops < clip.stop_seconds - 0.05
    lengths = stops - clip.start_seconds - offsets
    low = np.minimum(8 - lengths, 1.0)[uncut]
    high = np.maximum(8 - lengths, 1.0)[uncut]
    assert ((offsets[uncut] >= low - 0.07) & (offsets[uncut] <= high + 0.07)).all()


@pytest.mark.parametrize("pnr", [300, 330, 420, 539])
def test_a_point_of_no_return_outside_the_published_part_moves_that_side_to_the_end_of_the_clip(pnr: int) -> None:
    clip, free = record(pnr=pnr), record(pnr=None)
    moved = 0
    for seed in range(100):
        part, drawn = published_part(clip, seed=seed), published_part(free, seed=seed)
        first, last = (round(seconds * 30) for seconds in (drawn.start_seconds, drawn.stop_seconds))
        expected = (300 if pnr < first else first, 540 if pnr > last else last)
        assert (round(part.start_seconds * 30), round(part.stop_seconds * 30)) == expected
        assert part.place_frames == pytest.approx(slow_published_frames(*expected))
        distances = [abs(frame - pnr) for frame in slow_published_frames(*expected)]
        assert part.keyframe == distances.index(min(distances))
        moved += expected != (first, last)
    assert moved > 0 or pnr == 420
