"""State changes and points of no return: numbers against slow loops, guesses without training, and the whole task."""

import dataclasses
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from earmark.clips.state_change_parts import published_part, whole_clip
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets import Ego4D, Kitchen, StateChangeRecord
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation import (
    TASKS,
    ClipOptions,
    FineTunedStateChange,
    FineTuningOptions,
    KeyframeResult,
    ProbeOptions,
    PublishedStateChange,
    StateChange,
    StateChangeAnswers,
    StateChangeOptions,
    StateChangeResult,
    SupervisionLevels,
    evaluate_task,
    score_submission,
)
from earmark.evaluation.metrics import mean_keyframe_error_seconds, state_change_accuracy
from earmark.evaluation.published_state_change import batch_weights, published_errors
from earmark.evaluation.state_change_results import measure_keyframes, measure_state_changes
from earmark.evaluation.untrained_keyframes import along_part, peak_of_change, sound_guesses
from earmark.preparation import Transcoding, prepare
from tests.helpers.ego4d_files import change, clip, video, write_ego4d
from tests.helpers.made_store import add_video, finish_store
from tests.helpers.sounding_kitchen import sounding_kitchen

LEVELS = SupervisionLevels(4, 3, 3)


def record(name: str, pnr: int | None, *, start: int = 300, video: str = "v", length: int = 240) -> StateChangeRecord:
    stop = start + length
    return StateChangeRecord(name, video, start / 30, stop / 30, start, stop, 30.0, pnr is not None, pnr)


def drawn_records(number: int, *, share: float = 0.6, seed: int = 0) -> list[StateChangeRecord]:
    rng = np.random.default_rng(seed)
    records = []
    for k in range(number):
        start = int(rng.integers(0, 900))
        pnr = int(rng.integers(start, start + 240)) if rng.random() < share else None
        records.append(record(f"{k}", pnr, start=start, video=f"video {k % 7}"))
    return records


def drawn_answers(number: int, *, seed: int) -> StateChangeAnswers:
    rng = np.random.default_rng(seed)
    scores = {"state_change": rng.normal(size=(number, 2)), "keyframe": rng.normal(size=(number, 16))}
    return StateChangeAnswers({name: of.astype(np.float32) for name, of in scores.items()}, {})


def test_numbers_of_both_heads_equal_slow_loops_over_clips_and_seeds() -> None:
    records = drawn_records(60)
    parts = [whole_clip(of) for of in records]
    videos = np.array([of.video_id for of in records])
    ours, theirs = ([drawn_answers(60, seed=seed + k) for k in range(2)] for seed in (0, 10))
    labels = np.array([int(of.state_change is True) for of in records])
    state = measure_state_changes(
        ours, theirs, train_labels=np.array([1, 1, 0]), num_train_clips=3, test_labels=labels, videos=videos
    )
    found = measure_keyframes(ours, theirs, parts=parts, num_train_clips=2, videos=videos, guesses=None)

    def slow(answers: list[StateChangeAnswers]) -> tuple[float, float, float]:
        right, errors, near = [], [], []
        for answer in answers:
            for row, of in enumerate(records):
                scores = answer.scores["state_change"][row]
                right.append((scores[1] > scores[0]) == of.state_change)
                if of.pnr_frame is not None:
                    place = int(np.argmax(answer.scores["keyframe"][row]))
                    frame = of.start_frame + (place + 0.5) * 15
                    errors.append(abs(frame - of.pnr_frame) / 30)
                    near.append(errors[-1] <= 0.5)
        return 100 * float(np.mean(right)), float(np.mean(errors)), 100 * float(np.mean(near))

    assert found.within is not None
    measured = (state.accuracy, found.error_seconds, found.within)
    for score, mine, baseline in zip(measured, slow(ours), slow(theirs), strict=True):
        assert score.encoder.value == pytest.approx(mine)
        assert score.baseline is not None
        assert score.gain is not None
        assert score.baseline.value == pytest.approx(baseline)
        assert score.gain.value == pytest.approx(mine - baseline)
        assert score.encoder.low < mine < score.encoder.high
    assert state.accuracy.majority.value == pytest.approx(100 * labels.mean())
    changed = [of for of in records if of.pnr_frame is not None]
    centres = [abs((of.start_frame + 120) - (of.pnr_frame or 0)) / 30 for of in changed]
    assert found.error_seconds.majority.value == pytest.approx(np.mean(centres))
    by_chance = [
        abs(of.start_frame + 15 * place + 7.5 - (of.pnr_frame or 0)) / 30 for of in changed for place in range(16)
    ]
    assert found.error_seconds.chance == pytest.approx(np.mean(by_chance))
    assert found.num_test_clips == len(changed)
    row, near_row = found.rows()
    assert (row.unit, row.higher_is_better, row.majority_name, near_row.unit) == ("s", False, "clip's centre", "%")


def test_places_that_are_always_right_beat_the_centre_and_a_gain_below_0_says_so() -> None:
    records = drawn_records(80, share=1.0)
    parts = [whole_clip(of) for of in records]
    right = StateChangeAnswers({"keyframe": np.eye(16, dtype=np.float32)[[part.keyframe for part in parts]]}, {})
    found = measure_keyframes(
        [right], [drawn_answers(80, seed=0)], parts=parts, num_train_clips=0, videos=None, guesses=None
    )
    assert found.error_seconds.encoder.value <= 0.25
    assert found.error_seconds.gain is not None
    assert found.error_seconds.gain.high < 0
    assert found.error_seconds.encoder.high < found.error_seconds.majority.low


def test_published_errors_equal_the_frozen_reference(reference: Path) -> None:
    arrays = np.load(reference / "metrics.npz")
    starts, stops, pnr, fps = (
        arrays[f"scod__{name}"] for name in ("clip_start_frame", "clip_end_frame", "pnr_frame", "fps")
    )
    changes = arrays["scod__sc_labels"] == 1
    records = []
    for row in range(len(starts)):
        start, stop = int(starts[row]), int(stops[row])
        seconds = (stop - start + 1) / float(fps[row])  # the formula of frames per second, turned round
        change = int(pnr[row]) if changes[row] else None
        records.append(StateChangeRecord(f"{row}", "v", 0.0, seconds, start, stop, 30.0, bool(changes[row]), change))
    found = published_errors(arrays["scod__preds"][..., 0], records)
    np.testing.assert_allclose(found, arrays["scod__keyframe_distance_per_sample"], rtol=0, atol=1e-6)


def test_a_perfect_index_has_a_published_error_of_a_quarter_of_a_second() -> None:
    errors = []
    for start in range(15):
        records = [record(f"{pnr}", pnr, start=900 + start) for pnr in range(900 + start, 1140 + start)]
        places = [published_part(of).keyframe for of in records]
        errors.append(published_errors(np.eye(16, dtype=np.float32)[places], records))
    found = np.concatenate(errors)
    assert found.mean() == pytest.approx(0.257, abs=0.005)
    # what is really shown is at most half a step and, before the first frame, a step away
    exact = []
    for start in range(15):
        for pnr in range(900 + start, 1140 + start):
            part = published_part(record("x", pnr, start=900 + start))
            exact.append(abs(part.place_frames[part.keyframe] - pnr) / 30)
    assert np.mean(exact) < 0.16
    assert found.max() > np.max(exact)


@pytest.mark.parametrize("number", [1, 32, 33, 64, 75])
def test_published_means_are_those_of_batches_and_one_without_a_change_counts_as_0(number: int) -> None:
    rng = np.random.default_rng(number)
    changes = rng.random(number) < 0.4
    changes[32:64] = False
    changes[0] = True
    errors = np.where(changes, rng.random(number), np.nan)
    weighted = float((np.where(changes, np.nan_to_num(errors), 0.0) * batch_weights(changes)).mean())
    assert weighted == pytest.approx(mean_keyframe_error_seconds(errors, batch_size=32, protocol="published"))
    right = (rng.random(number) < 0.5).astype(float)
    means = [right[first : first + 32].mean() for first in range(0, number, 32)]
    assert float((right * batch_weights(np.ones(number, bool))).mean()) == pytest.approx(np.mean(means))


def test_sound_alone_answers_by_the_strongest_moment_and_by_the_centre_where_there_is_none(tmp_path: Path) -> None:
    from earmark.moments import Moment, detector_parameters, moments_table
    from earmark.preparation.record import load_record, save_record
    from earmark.preparation.tables import write_moments_of_store

    rows = [add_video(tmp_path, name, num_frames=400, has_audio=name != "c") for name in ("a", "b", "c")]
    times = [2.0, 11.0, 12.5, 17.0, 19.0]
    finish_store(tmp_path, rows, {"a": times})
    scores = [9.0, 1.0, 2.0, 5.0, 8.0]  # the strongest of all lies outside
    moments = [Moment(time, score, 1.0, int(time // 10)) for time, score in zip(times, scores, strict=True)]
    save_record(tmp_path, dataclasses.replace(load_record(tmp_path, "a"), moments=tuple(moments)))
    table = moments_table({"a": moments, "b": [], "c": []}, detector="earmark", parameters=detector_parameters())
    write_moments_of_store(tmp_path, table)
    store = PreparedStore(tmp_path)
    records = [
        dataclasses.replace(record("a", 390), video_id="a"),  # 10 to 18 s, at 13 s
        dataclasses.replace(record("b", 420), video_id="b"),  # at 14 s, the centre
        dataclasses.replace(record("c", 480), video_id="c"),  # at 16 s
        dataclasses.replace(record("n", None), video_id="a"),
    ]
    parts = [whole_clip(of) for of in records]
    guesses = sound_guesses(store, parts)
    assert guesses.strongest.tolist() == [17.0, 14.0, 14.0, 17.0]
    assert guesses.most_central.tolist() == [12.5, 14.0, 14.0, 12.5]
    np.testing.assert_array_equal(guesses.nearest, [12.5, np.nan, np.nan, np.nan])
    assert guesses.num_moments.tolist() == [3, 0, 0, 3]
    found = measure_keyframes(
        [drawn_answers(4, seed=0)], [], parts=parts, num_train_clips=0, videos=None, guesses=guesses
    ).sound
    assert found is not None
    assert found.error_seconds.encoder.value == pytest.approx((4 + 0 + 2) / 3)
    assert found.median_seconds == pytest.approx(2)
    assert found.within.encoder.value == pytest.approx(100 / 3)
    assert (found.num_without_sound, found.num_without_moment) == (1, 1)
    assert found.central_error_seconds == pytest.approx((0.5 + 0 + 2) / 3)
    assert (found.nearest_num_clips, found.nearest_median_seconds, found.nearest_within) == (1, 0.5, 100)
    text = " ".join(found.lines())
    assert "2 clips answered by their centre (1 without sound, 1 without a moment)" in text
    assert "Oracle, which looks at the label: nearest moment of 1 clips" in text


def test_the_peak_of_change_equals_a_slow_loop_whatever_the_scale_of_features() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 31, 4)).astype(np.float32)
    middles = 10.25 + 0.25 * np.arange(31)[None] + np.arange(5)[:, None]
    found = peak_of_change(features, middles, apart_seconds=0.7)  # three steps
    for n in range(5):
        best, at = np.inf, -1.0
        for k in range(28):
            a, b = features[n, k].astype(np.float64), features[n, k + 3].astype(np.float64)
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            if cosine < best:
                best, at = cosine, (middles[n, k] + middles[n, k + 3]) / 2
        assert found[n] == pytest.approx(at)
    scaled = features * rng.uniform(0.5, 2, size=(5, 31, 1)).astype(np.float32)
    np.testing.assert_allclose(peak_of_change(scaled, middles, apart_seconds=0.7), found)
    with pytest.raises(ValueError, match="too few to compare those 8 s apart"):
        peak_of_change(features, middles, apart_seconds=8)
    part = along_part(whole_clip(record("x", 400)), clip_seconds=0.5)
    np.testing.assert_allclose(part.place_seconds, 10.25 + 0.25 * np.arange(31))


@cache
def ego4d_kitchen() -> tuple[Ego4D, PreparedStore]:
    """Return the small kitchen in the form of Ego4D, prepared."""
    kitchen, store = sounding_kitchen()
    assert isinstance(kitchen, Kitchen)
    ego4d = Ego4D(kitchen.base_path / "ego4d", version="v2")
    folder = store.root.parent / "ego4d-store"
    prepare(ego4d.videos(), folder, transcoding=Transcoding(short_side=64), isolate=False, progress=False)
    return ego4d, PreparedStore(folder)


def encoders() -> dict[str, R2Plus1D | SpecCNN9]:
    return {"video": R2Plus1D(depth=10, width=4), "audio": SpecCNN9(width=4)}


TRANSFORMS = {"video": VideoCrop(crop_size=32, random=False), "audio": LogMel()}


@pytest.mark.parametrize(
    ("view", "probe", "modalities"),
    [
        ("spread", "linear", ("video",)),
        ("windows", "linear", ("video", "audio")),
        ("spread", "attentive", ("video",)),
        ("spread", "knn", ("video", "audio")),
    ],
)
def test_the_task_on_a_kitchen(view: str, probe: str, modalities: tuple[str, ...], tmp_path: Path) -> None:
    dataset, store = ego4d_kitchen()
    options = ProbeOptions(epochs=2, milestones=(), kind=probe, neighbours=(2,), num_heads=2)  # type: ignore[arg-type]
    clips = ClipOptions(clip_seconds=0.5, clip_fps=8, modalities=modalities)  # type: ignore[arg-type]
    seeing = StateChangeOptions(view=view, train_parts=2)  # type: ignore[arg-type]
    task = StateChange.from_dataset(dataset, store, split="validation", clips=clips, probe=options, seeing=seeing)
    assert TASKS["oscc_pnr"] is StateChange
    judged = {name: encoder for name, encoder in encoders().items() if name in modalities}
    judgement = evaluate_task(task, judged, transforms=TRANSFORMS, baseline_encoders=judged, num_seeds=2)  # type: ignore[arg-type]
    state, keyframe = judgement.result.columns
    assert isinstance(state, StateChangeResult)
    assert isinstance(keyframe, KeyframeResult)
    records = dataset.state_changes("validation")
    assert state.num_test_clips == len(records) == task.records[1].num_used
    assert keyframe.num_test_clips == sum(of.state_change is True for of in records)
    assert task.records[0].num_used == len(dataset.state_changes("train"))
    assert len(task.train_clips.labels["keyframe"]) == 2 * task.records[0].num_used
    assert state.accuracy.gain is not None
    assert state.accuracy.gain.value == 0  # the same encoder
    assert keyframe.change_error_seconds is not None
    assert keyframe.sound is not None
    labels = [row.label for column in judgement.result.columns for row in column.rows()]
    assert labels == [
        "state change",
        *("point of no return", "point of no return, within 0.5 s"),
        *("peak of change", "peak of change, within 0.5 s"),
        *("by sound alone", "by sound alone, within 0.5 s"),
    ]
    assert "Strongest moment by sound: median error" in str(task.table(judgement.result).caption)
    assert [row.encoder_name for row in keyframe.rows()] == ["", "", "", "", "strongest moment", "strongest moment"]
    json.loads(judgement.result.to_json())
    path = tmp_path / "mine.json"
    task.write_submission(path, judgement.answers[0].encoder, levels=LEVELS)
    oscc, pnr = task.submission_paths(path)
    assert [file.name for file in (oscc, pnr)] == ["mine_oscc.json", "mine_pnr.json"]
    states = {entry["unique_id"]: entry["state_change"] for entry in json.loads(oscc.read_text())}
    frames = {entry["unique_id"]: entry["pnr_frame"] for entry in json.loads(pnr.read_text())}
    assert list(states) == list(frames) == [of.unique_id for of in records]
    answer = judgement.answers[0].encoder
    right = [states[of.unique_id] == of.state_change for of in records]
    logits, truth = answer.scores["state_change"], np.array([int(of.state_change is True) for of in records])
    assert np.mean(right) == pytest.approx(state_change_accuracy(logits, truth))
    errors = [
        abs(frames[of.unique_id] - (of.pnr_frame - of.start_frame)) / of.fps
        for of in records
        if of.pnr_frame is not None
    ]
    assert np.mean(errors) == pytest.approx(keyframe.error_seconds.per_seed[0])
    scored = score_submission(oscc, dataset.annotations_path)
    assert scored.metrics == {"accuracy": pytest.approx(state.accuracy.per_seed[0])}
    assert scored.majority == {"accuracy": pytest.approx(state.accuracy.majority.value)}
    scored = score_submission(pnr, dataset.annotations_path)
    assert scored.metrics == {"error_seconds": pytest.approx(keyframe.error_seconds.per_seed[0])}
    centre = scored.baselines["centre frame"]["error_seconds"]
    assert centre == pytest.approx(keyframe.error_seconds.majority.value, abs=0.1)  # of whole frames


def test_the_published_protocol_is_the_task_with_its_frames_and_its_means() -> None:
    dataset, store = ego4d_kitchen()
    task = PublishedStateChange.from_dataset(
        dataset, store, split="validation", clips=ClipOptions(clip_fps=8), probe=ProbeOptions(epochs=2, milestones=())
    )
    task = dataclasses.replace(task, along_clips=None)
    judged = {"video": encoders()["video"]}
    judgement = evaluate_task(task, judged, transforms=TRANSFORMS)  # type: ignore[arg-type]
    state, keyframe = judgement.result.columns
    assert isinstance(keyframe, KeyframeResult)
    assert isinstance(state, StateChangeResult)
    scores, records = judgement.answers[0].encoder.scores, dataset.state_changes("validation")
    right = np.array(
        [(row[1] > row[0]) == of.state_change for row, of in zip(scores["state_change"], records, strict=True)]
    )
    batches = range(0, len(records), 32)
    assert state.accuracy.encoder.value == pytest.approx(
        100 * np.mean([right[first : first + 32].mean() for first in batches])
    )
    errors = []
    for row, of in zip(scores["keyframe"], records, strict=True):
        place = int(np.argmax(row))
        frame = of.start_frame + (of.stop_frame - of.start_frame) / 16 * place
        fps = (of.stop_frame - of.start_frame + 1) / (of.stop_seconds - of.start_seconds)
        errors.append(np.nan if of.pnr_frame is None else abs(frame - of.pnr_frame) / fps)
    by_batch = []
    for first in batches:
        some = [error for error in errors[first : first + 32] if not np.isnan(error)]
        by_batch.append(np.mean(some) if some else 0.0)
    assert keyframe.error_seconds.encoder.value == pytest.approx(np.mean(by_batch))
    assert "a perfect index has an error" in judgement.result.options["protocol"]


def test_a_fine_tuned_encoder_answers_and_stays_as_it_is() -> None:
    dataset, store = ego4d_kitchen()
    seeing = StateChangeOptions(train_parts=1)
    task = FineTunedStateChange.from_dataset(
        dataset, store, split="validation", clips=ClipOptions(clip_fps=8), probe=ProbeOptions(), seeing=seeing
    )
    task = dataclasses.replace(
        task, along_clips=None, fine_tuning=FineTuningOptions(epochs=1, batch_size=8, batch_norm="eval")
    )
    encoder = encoders()["video"]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    result = evaluate_task(task, {"video": encoder}, transforms=TRANSFORMS).result  # type: ignore[arg-type]
    assert len(result.columns) == 2
    assert "fine_tuning" in result.options
    assert all((value == before[name]).all() for name, value in encoder.state_dict().items())
    windows = dataclasses.replace(task, seeing=StateChangeOptions(view="windows"))
    with pytest.raises(ValueError, match="fine-tuned on spread frames"):
        windows.check()


def test_another_data_set_and_what_does_not_fit_are_refused() -> None:
    kitchen, kitchen_store = sounding_kitchen()
    with pytest.raises(ValueError, match="data set kitchen has no annotated state changes; Ego4D has"):
        StateChange.from_dataset(kitchen, kitchen_store, split="validation", clips=ClipOptions(), probe=ProbeOptions())
    for options, why in (
        ({"view": "dense"}, "view"),
        ({"train_parts": -1}, "train_parts"),
        ({"gap_seconds": -1.0}, "gap"),
    ):
        with pytest.raises(ValueError, match=why):
            StateChangeOptions(**options)  # type: ignore[arg-type]
    dataset, store = ego4d_kitchen()
    task = StateChange.from_dataset(
        dataset,
        store,
        split="validation",
        clips=ClipOptions(clip_fps=8),
        probe=ProbeOptions(kind="knn"),
        seeing=StateChangeOptions(view="windows", train_parts=0),
    )
    with pytest.raises(ValueError, match="windows have no nearest neighbours"):
        task.check()


def test_clips_of_one_video_are_one_in_intervals_and_are_held_out_together(tmp_path: Path) -> None:
    names = {"train": ("a", "b"), "val": ("c", "d")}  # clip files: the first two of video v1, the others of v2
    dataset = write_ego4d(
        tmp_path / "EGO4D",
        videos=[video("v1"), video("v2", "val")],
        clips=[clip(name, f"v{1 + (split == 'val')}") for split, of in names.items() for name in of],
        changes={
            split: [change(f"{name} changes", f"v{1 + (split == 'val')}", clip_uid=name) for name in of]
            for split, of in names.items()
        },
        files=[f"clips/{name}.mp4" for of in names.values() for name in of],
        layout="clips",
    )
    finish_store(tmp_path, [add_video(tmp_path, name, num_frames=300) for of in names.values() for name in of], {})
    task = StateChange.from_dataset(
        dataset, PreparedStore(tmp_path), split="validation", clips=ClipOptions(), probe=ProbeOptions()
    )
    assert [part.record.video_id for part in task.test_parts] == ["c", "d"]
    assert task.test_videos == ["v2", "v2"]
    assert set(task.train_videos or ()) == {"v1"}


def test_clips_that_cannot_be_seen_are_answered_and_counted_in_the_files(tmp_path: Path) -> None:
    dataset, store = ego4d_kitchen()
    task = StateChange.from_dataset(dataset, store, split="test", clips=ClipOptions(clip_fps=8), probe=ProbeOptions())
    assert not task.is_labelled
    lost = record("lost", None, video="gone")
    task = dataclasses.replace(task, all_records=[*task.all_records, lost])
    answers = drawn_answers(len(task.test_parts), seed=0)
    (note,) = task.write_submission(tmp_path / "test.zip", answers, levels=LEVELS)
    assert note.startswith(f"1 clip of {len(task.all_records)} could not be seen: answered by the more frequent class")
    task.write_submission(tmp_path / "test.json", answers, levels=LEVELS)
    entry = json.loads((tmp_path / "test_pnr.json").read_text())[-1]
    assert entry == {"unique_id": "lost", "pnr_frame": 120.0}
