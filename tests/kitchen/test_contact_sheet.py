"""The contact sheet: every kind of action, the same for the same seed, of scenes and of a finished kitchen."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from earmark.cli.main import main
from earmark.kitchen import TRANSITIONS, KitchenSize, make_kitchen
from earmark.kitchen.contact_sheet import _spectrogram_picture, draw_contact_sheet

PAIRS = [("open", "drawer"), ("close", "drawer"), ("turn-on", "tap")]


def test_a_sheet_of_scenes_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert draw_contact_sheet(tmp_path / f"{name}.png", seed=seed, pairs=PAIRS, columns=2, sounds=False) == 3
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert sheet.shape[1] > 600
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    cell = sheet[-(sheet.shape[0] // 2) :, sheet.shape[1] // 2 + 10 :]
    assert (cell == 255).all(), "three actions in two columns leave the last place empty"


def test_silence_is_dark() -> None:
    assert _spectrogram_picture(np.zeros(16000, np.float32)).max() < 10
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert _spectrogram_picture(noise).max() > 200


def test_before_and_after_differ_and_the_sound_begins_at_its_mark(tmp_path: Path) -> None:
    from earmark.kitchen.contact_sheet import SAMPLE_RATE, _rendered

    (example,) = _rendered(0, {("open", "fridge")})
    assert example.title == "open fridge"
    assert example.frames is not None
    assert np.abs(np.subtract(*(frame.astype(float) for frame in example.frames))).mean() > 3
    contact = round(0.6 * SAMPLE_RATE)
    before, after = example.sound[contact - 1600 : contact], example.sound[contact : contact + 1600]
    assert np.sqrt((after**2).mean()) > 5 * np.sqrt((before**2).mean())


def test_every_kind_of_action_has_a_scene(tmp_path: Path) -> None:
    pairs = {(step.verb, step.noun) for ring in TRANSITIONS.values() for step in ring}
    some = sorted(pairs)[::9]
    assert draw_contact_sheet(tmp_path / "sheet.png", pairs=some, sounds=False) == len(some)


def test_every_sound_that_no_action_makes_is_heard_from_its_begin_on(tmp_path: Path) -> None:
    from earmark.kitchen.contact_sheet import SAMPLE_RATE, _rendered_sounds

    examples = {example.title: example for example in _rendered_sounds(0)}
    assert len(examples) == 12
    begin = round(0.6 * SAMPLE_RATE)
    for title, example in examples.items():
        before, after = example.sound[:begin], example.sound[begin:]
        louder = float(np.std(after) / np.std(before))
        assert louder == pytest.approx(1, abs=0.2) if title == "room alone" else louder > 1.5, title
    assert draw_contact_sheet(tmp_path / "sheet.png", pairs=[]) == 12


def test_the_command_draws_a_finished_kitchen_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "k", tmp_path / "sheet.png"
    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 12, "width": 64, "height": 64, "fps": 8}
    make_kitchen(out, size=KitchenSize(sample_rate=16000, **sizes), progress=False)
    assert main(["kitchen", str(out), "--contact-sheet", str(sheet)]) == 0
    events = pq.read_table(out / "events.parquet").to_pylist()
    kinds = {(event["verb"], event["noun"]) for event in events if event["on_screen"] and event["audible"]}
    sounds = pq.read_table(out / "sounds.parquet").to_pylist()
    others = {row["description"] for row in sounds if not row["event_id"] or "offscreen" in row["event_id"]}
    assert f"{len(kinds) + len(others)} kinds of action and of sound" in capsys.readouterr().err
    first = sheet.read_bytes()
    assert main(["kitchen", str(out), "--contact-sheet", str(sheet)]) == 0
    assert sheet.read_bytes() == first


def test_a_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the actions asked for"):
        draw_contact_sheet(tmp_path / "sheet.png", pairs=[("eat", "hob")], sounds=False)
