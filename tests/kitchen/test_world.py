"""The world of Audible Kitchen: what follows what, how it looks, and how it sounds."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from earmark.kitchen.activities import GRAMMAR, expand
from earmark.kitchen.hands import draw_hands, held_tool
from earmark.kitchen.objects import draw_thing, grip_point
from earmark.kitchen.pen import Pen
from earmark.kitchen.picture import Picture
from earmark.kitchen.presets import Difficulty
from earmark.kitchen.room import Room, draw_room
from earmark.kitchen.script import GESTURES, LOOKS, OFF_SCREEN_SOUNDS, TRANSITIONS, Event, Script, write_script
from earmark.kitchen.sound import render_sound
from earmark.kitchen.sound_events import event_wave
from earmark.kitchen.states import NOUNS, TOOLS, VERBS, Transition

RATE = 16000
CALM = Difficulty(silent_share=0.0, off_screen_share=0.0, plan_share=0.9)
STEPS = [(thing, step) for thing, steps in TRANSITIONS.items() for step in steps]


@cache
def scripts(plan_share: float) -> tuple[Script, ...]:
    return tuple(
        write_script(
            np.random.default_rng(seed),
            duration_seconds=240,
            difficulty=Difficulty(
                silent_share=0.2,
                off_screen_share=0.3,
                idle_motion_share=0.4,
                babble_share=0.25,
                plan_share=plan_share,
            ),
        )
        for seed in range(30)
    )


@cache
def room_of(seed: int) -> Room:
    return draw_room(np.random.default_rng(seed))


def actions(script: Script) -> list[Event]:
    return [event for event in script.events if event.on_screen]


def pauses_of(script: Script) -> list[float]:
    """Return the length of every pause, but what follows the last action."""
    spans = [(0.0, 0.0), *((event.start_seconds, event.stop_seconds) for event in actions(script))]
    return [start - stop for (_, stop), (start, _) in itertools.pairwise(spans)]


def event_of(thing: str, step: Transition, *, force_db: float = 0.0) -> Event:
    return Event(thing, step.verb, step.noun, 1.0, 1.8, 2.7, step.before, step.after, force_db)


def test_there_are_at_least_12_verbs_and_20_nouns_and_each_occurs() -> None:
    assert len(VERBS) >= 12
    assert len(NOUNS) >= 20
    seen = {(event.verb, event.noun) for script in scripts(0.2) for event in actions(script)}
    assert seen == {(step.verb, step.noun) for _, step in STEPS}


@pytest.mark.parametrize("plan_share", [0.0, 0.9])
def test_every_action_finds_what_it_needs_and_only_one_tool_is_in_hand(plan_share: float) -> None:
    for script in scripts(plan_share):
        states = dict(script.initial)
        for event in actions(script):
            fitting = [
                step
                for step in TRANSITIONS[event.thing]
                if (step.verb, step.noun, step.before, step.after)
                == (event.verb, event.noun, states[event.thing], event.after)
            ]
            assert any(all(states[thing] == state for thing, state in step.needs) for step in fitting)
            states[event.thing] = event.after
            assert sum(states[tool] == "in hand" for tool in TOOLS) <= 1
            assert script.state(event.thing, event.stop_seconds) == event.after


@pytest.mark.parametrize("plan_share", [0.0, 0.9])
def test_half_of_the_time_nothing_happens(plan_share: float) -> None:
    for script in scripts(plan_share):
        busy = sum(event.stop_seconds - event.start_seconds for event in actions(script))
        assert 0.4 <= 1 - busy / script.duration_seconds <= 0.6


def test_there_are_rests_long_enough_for_clips_of_8_s_without_a_change_and_short_pauses_between() -> None:
    pauses = np.array([pause for script in scripts(0.9) for pause in pauses_of(script)])
    rests = pauses[pauses >= 7.99]
    assert len(rests) >= 6 * 30  # of four minutes each
    assert rests.max() < 10.7
    assert np.median(pauses[pauses < 7.99]) < 1.2
    assert pauses.min() > 0.19
    for script in scripts(0.9):
        contacts = [event.contact_seconds for event in actions(script)]
        for event, following in itertools.pairwise(actions(script)):
            if following.start_seconds - event.stop_seconds >= 7.99:
                assert following.contact_seconds - event.contact_seconds > 9.1
        assert any(min(b - a, c - b) > 7 for a, b, c in zip(contacts, contacts[1:], contacts[2:], strict=False))


@pytest.mark.parametrize("duration_seconds", [5, 8, 13, 21, 34])
def test_short_videos_have_whole_actions_within_them(duration_seconds: float) -> None:
    for seed in range(60):
        script = write_script(np.random.default_rng(seed), duration_seconds=duration_seconds, difficulty=CALM)
        events = script.events
        times = [t for e in events for t in (e.start_seconds, e.contact_seconds, e.stop_seconds)]
        assert times[0] > 0.19
        assert times == sorted(times)
        assert times[-1] < duration_seconds


def test_the_grammar_names_only_what_there_is() -> None:
    states = {thing: {step.before for step in steps} for thing, steps in TRANSITIONS.items()}
    for productions in GRAMMAR.values():
        for weight, production in productions:
            assert weight > 0
            for part in production.split(", "):
                thing, _, state = part.partition("=")
                assert state in states[thing] if state else thing in GRAMMAR
    drawn = {tuple(expand(np.random.default_rng(seed))) for seed in range(200)}
    assert len(drawn) > 40


def test_activities_make_verbs_and_nouns_long_tailed_and_free_choice_evens_verbs_out() -> None:
    verbs = {share: Counter(e.verb for s in scripts(share) for e in actions(s)) for share in (0.0, 0.9)}
    nouns = Counter(event.noun for script in scripts(0.9) for event in actions(script))
    spread = {share: max(counts.values()) / min(counts.values()) for share, counts in verbs.items()}
    assert spread[0.9] > 15
    assert spread[0.0] < 0.75 * spread[0.9]
    assert max(nouns.values()) > 10 * min(nouns.values())
    assert sum(sorted(nouns.values())[-10:]) > 0.5 * nouns.total()


def test_a_bigram_model_anticipates_better_than_repeating_but_not_surely() -> None:
    sequences = [[(event.verb, event.noun) for event in actions(script)] for script in scripts(0.9)]
    follows: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for sequence in sequences[:20]:
        for action, following in itertools.pairwise(sequence):
            follows.setdefault(action, Counter())[following] += 1
    pairs = [pair for sequence in sequences[20:] for pair in itertools.pairwise(sequence)]
    verbs = Counter(following[0] for _, following in pairs)
    bigram = np.mean([follows[a].most_common(1)[0][0][0] == b[0] for a, b in pairs if a in follows])
    repeat = np.mean([a[0] == b[0] for a, b in pairs])
    assert bigram > repeat + 0.2
    assert bigram > verbs.most_common(1)[0][1] / verbs.total() + 0.15
    assert bigram < 0.85


def test_distractors_come_at_the_rates_asked_for() -> None:
    all_events = [event for script in scripts(0.9) for event in script.events]
    seen = [event for event in all_events if event.on_screen]
    may_be_silent = [event for event in seen if event.verb not in ("turn-on", "turn-off", "pour")]
    assert np.mean([not event.audible for event in may_be_silent]) == pytest.approx(0.2, abs=0.03)
    assert (len(all_events) - len(seen)) / len(seen) == pytest.approx(0.3, abs=0.04)
    assert {event.sound for event in all_events} == {"", *OFF_SCREEN_SOUNDS}
    talk = sum(end - begin for script in scripts(0.9) for begin, end in script.talk)
    assert talk / (30 * 240) == pytest.approx(0.25, abs=0.05)
    pauses = [pause for script in scripts(0.9) for pause in pauses_of(script)]
    gestures = [gesture for script in scripts(0.9) for gesture in script.gestures]
    stretches = sum(max(1, round(pause / 3)) for pause in pauses if pause >= 1.01)
    assert len(gestures) / stretches == pytest.approx(0.4, abs=0.04)
    assert {gesture.kind for gesture in gestures} == set(GESTURES)


def test_distractors_do_not_change_the_actions() -> None:
    plain = write_script(np.random.default_rng(3), duration_seconds=240, difficulty=CALM)
    assert [(e.start_seconds, e.verb, e.noun, e.after) for e in plain.events] == [
        (e.start_seconds, e.verb, e.noun, e.after) for e in actions(scripts(0.9)[3])
    ]
    assert (plain.gestures, plain.talk) == ((), ())


def test_idle_motions_never_overlap_actions() -> None:
    for script in scripts(0.9):
        spans = [(span.start_seconds, span.stop_seconds) for span in (*actions(script), *script.gestures)]
        for (_, stop), (start, _) in itertools.pairwise(sorted(spans)):
            assert stop <= start


def scene_patch(thing: str, state: str, room: Room) -> np.ndarray:
    """Return the surroundings of a thing in a state, over its background in another colour."""
    image = np.full((390, 1000, 3), 120, np.uint8)
    draw_thing(Pen.scaled(image, 200), room.things[thing], LOOKS[state])
    place = room.things[thing]
    x, y = int(place.x * 200), int(place.y * 200)
    return image[max(0, y - 40) : y + 40, max(0, x - 40) : x + 40].astype(np.float64)


@pytest.mark.parametrize(("thing", "step"), STEPS, ids=lambda value: getattr(value, "verb", value))
def test_every_state_can_be_seen_and_every_action_drawn(thing: str, step: Transition) -> None:
    room = room_of(0)
    change = np.abs(scene_patch(thing, step.before, room) - scene_patch(thing, step.after, room))
    assert (change.max(-1) > 30).mean() > (0.005 if thing == "kettle" else 0.03)  # of the kettle a lamp
    event = event_of(thing, step)
    script = Script(
        4.0, {name: steps[0].before for name, steps in TRANSITIONS.items()} | {thing: step.before}, (event,)
    )
    x, y = grip_point(room.things[thing], LOOKS[step.before])
    view = np.array([[1.0, 0.0, 0.7 - x], [0.0, 1.0, 0.4 - y]])
    images = []
    for time in (1.0, 1.5, 1.7, 1.8, 1.95, 2.1, 2.7):
        image = np.full((160, 284, 3), 120, np.uint8)
        draw_hands(Pen.scaled(image, 200), view, room, script, event, time)
        images.append(image.astype(np.int64))
    for image in images[1:-1]:
        assert (np.abs(image - 120).max(-1) > 10).mean() > 0.02
    assert (images[0] == 120).mean() > 0.97  # hands come from out of view and leave it
    assert (images[-1] == 120).mean() > 0.97


def test_a_tool_taken_is_seen_until_it_is_put_back() -> None:
    step = TRANSITIONS["knife"][0]
    taken = event_of("knife", step)
    start = {name: steps[0].before for name, steps in TRANSITIONS.items()}
    with_tool = Script(8.0, start, (taken,))
    assert held_tool(with_tool, None, 1.0) is None
    assert held_tool(with_tool, taken, 2.0) is None  # it is in the hand that took it
    assert held_tool(with_tool, None, 5.0) == "knife"
    frames = []
    for script in (with_tool, Script(8.0, start, (taken,))):
        picture = Picture(room_of(1), script, np.random.default_rng(0), width=128, height=72, fps=8)
        frames.append(np.stack(list(picture.frames())))
    np.testing.assert_array_equal(frames[0], frames[1])
    put = Event("knife", "put", "knife", 4.0, 4.8, 5.7, "in hand", "on counter", 0.0)
    picture = Picture(
        room_of(1), Script(8.0, start, (taken, put)), np.random.default_rng(0), width=128, height=72, fps=8
    )
    put_back = np.stack(list(picture.frames()))
    low_left = np.abs(frames[0][56:, 60:, :32] * 1.0 - put_back[56:, 60:, :32]).mean()
    assert held_tool(Script(8.0, start, (taken, put)), None, 7.0) is None
    assert low_left > 0


def test_idle_motions_are_seen_and_leave_the_kitchen_as_it_was() -> None:
    for script in scripts(0.9)[:6]:
        for gesture in script.gestures:
            for thing in TRANSITIONS:
                assert script.state(thing, gesture.start_seconds) == script.state(thing, gesture.stop_seconds)
    moving_hands = replace(CALM, idle_motion_share=1.0)
    base = write_script(np.random.default_rng(2), duration_seconds=20, difficulty=moving_hands)
    calm = Script(base.duration_seconds, base.initial, base.events)
    room = room_of(2)
    moving = Picture(room, base, np.random.default_rng(0), width=128, height=72, fps=8)
    still = Picture(room, base, np.random.default_rng(0), width=128, height=72, fps=8)
    still._script = calm  # after the head's motion, which follows a gesture, has been drawn
    different = [bool((a != b).any()) for a, b in zip(moving.frames(), still.frames(), strict=True)]
    shown = [
        any(g.start_seconds <= frame / 8 <= g.stop_seconds for g in base.gestures) for frame in range(len(different))
    ]
    assert len(base.gestures) >= 2
    assert not any(d and not s for d, s in zip(different, shown, strict=True))
    assert sum(d and s for d, s in zip(different, shown, strict=True)) > 0.5 * sum(shown)


def test_each_kitchen_has_its_own_layout_colours_and_clutter() -> None:
    first, second = room_of(0), room_of(1)
    assert [thing.x for thing in first.things.values()] != [thing.x for thing in second.things.values()]
    assert (first.wall, first.counter, first.light) != (second.wall, second.counter, second.light)
    for seed in range(20):
        for thing in room_of(seed).things.values():
            assert 0.3 < thing.x < 4.7


def spectrum(event: Event, room: Room, seed: int) -> np.ndarray:
    """Return the log power of an event in 24 bands and 6 stretches of time, about the contact."""
    lead, wave = event_wave(room, event, np.random.default_rng(seed), RATE)
    padded = np.concatenate([np.zeros(RATE), wave, np.zeros(RATE)])
    pieces = padded[RATE + lead - RATE // 4 :][: RATE * 3 // 4].reshape(6, -1)
    power = np.abs(np.fft.rfft(pieces, axis=1)[:, 1:961]) ** 2
    bands = power.reshape(6, 24, 40).mean(-1)
    return np.log10(bands + 1e-3).ravel()


@pytest.mark.parametrize(
    ("thing", "first", "second"),
    [
        *[(thing, 0, 1) for thing in ("drawer", "cupboard", "fridge", "oven", "jar", "tap", "hob", "kettle")],
        *[(thing, 0, 1) for thing in ("lid", "knife", "plate", "cloth")],
    ],
)
def test_opposite_actions_sound_different(thing: str, first: int, second: int) -> None:
    room = room_of(3)
    events = [event_of(thing, TRANSITIONS[thing][index]) for index in (first, second)]
    takes = np.array([[spectrum(event, room, seed) for seed in range(16)] for event in events])
    centres = takes[:, :8].mean(1)
    distances = np.linalg.norm(takes[:, 8:, None] - centres, axis=-1)
    right = np.mean(distances.argmin(-1) == np.array([[0], [1]]))
    assert right >= (0.75 if step_verbs(thing) == {"take", "put"} else 0.9)


def step_verbs(thing: str) -> set[str]:
    return {step.verb for step in TRANSITIONS[thing][:2]}


def level_db(event: Event, room: Room) -> float:
    lead, wave = event_wave(room, event, np.random.default_rng(0), RATE)
    return float(20 * np.log10(np.sqrt(np.mean(wave[lead : lead + 480] ** 2))))


def test_force_material_size_and_distance_set_the_level() -> None:
    room = room_of(0)
    put = TRANSITIONS["plate"][1]
    soft, hard = (level_db(event_of("plate", put, force_db=force), room) for force in (-4.0, 4.0))
    assert hard - soft == pytest.approx(8.0, abs=0.1)
    cloth, knife = (level_db(event_of(tool, TRANSITIONS[tool][1]), room) for tool in ("cloth", "knife"))
    assert knife > cloth + 5
    near, far = (level_db(event_of(thing, TRANSITIONS[thing][0]), room) for thing in ("drawer", "cupboard"))
    sizes = 40 * np.log10(room.things["drawer"].size / room.things["cupboard"].size)
    assert near - sizes > far + 2


@pytest.mark.parametrize("sound", list(OFF_SCREEN_SOUNDS))
def test_sounds_from_elsewhere_begin_at_their_contact(sound: str) -> None:
    event = Event(
        OFF_SCREEN_SOUNDS[sound], "", "", 0.9, 1.0, 1.4, "", "", 0.0, audible=True, on_screen=False, sound=sound
    )
    lead, wave = event_wave(room_of(0), event, np.random.default_rng(1), RATE)
    assert lead == 0
    power = np.convolve(wave**2, np.ones(16) / 16, "same")
    assert np.argmax(power > 0.2 * power[: RATE // 5].max()) < 0.010 * RATE


def test_the_background_follows_the_noise_option_and_talk_is_heard_while_it_lasts() -> None:
    start = {name: steps[0].before for name, steps in TRANSITIONS.items()}
    quiet = Script(6.0, start, ())
    waves = {
        level: render_sound(room_of(0), quiet, np.random.default_rng(0), sample_rate=RATE, noise_db=level).wave
        for level in (-12.0, 0.0, 12.0)
    }
    for level in (-12.0, 12.0):
        measured = 20 * np.log10(waves[level].std() / waves[0.0].std())
        assert measured == pytest.approx(level, abs=0.3)
    talking = Script(6.0, start, (), talk=((2.0, 4.0),))
    wave = render_sound(room_of(0), talking, np.random.default_rng(0), sample_rate=RATE).wave
    assert wave[int(2.2 * RATE) : int(3.8 * RATE)].std() > 2 * wave[: 2 * RATE].std()
    np.testing.assert_allclose(wave[: 2 * RATE], waves[0.0][: 2 * RATE], atol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.52, 0.8])
def test_the_idle_share_is_that_of_the_difficulty(share: float) -> None:
    shares = []
    for seed in range(40):
        script = write_script(
            np.random.default_rng(seed), duration_seconds=120, difficulty=Difficulty(idle_share=share)
        )
        spans = [(event.start_seconds, event.stop_seconds) for event in actions(script)]
        assert all(start - stop >= 0.19 for (_, stop), (start, _) in itertools.pairwise([(0.0, 0.0), *spans]))
        assert spans[-1][1] <= 120
        shares.append(1 - sum(stop - start for start, stop in spans) / 120)
    assert np.mean(shares) == pytest.approx(share, abs=0.02)
    assert share - 0.07 < min(shares) < max(shares) < share + 0.07
    assert max(shares) - min(shares) > 0.03  # it is drawn for each video


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_short_videos_have_room_for_their_pauses(share: float) -> None:
    for seed in range(60):
        script = write_script(np.random.default_rng(seed), duration_seconds=5, difficulty=Difficulty(idle_share=share))
        spans = [(0.0, 0.0), *((event.start_seconds, event.stop_seconds) for event in actions(script)), (5.0, 5.0)]
        assert all(start - stop >= 0.19 for (_, stop), (start, _) in itertools.pairwise(spans))
