"""What is shown of learned changes: where the evidence lies, principal planes, examples, and their page."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.clips.store import PreparedStore
from earmark.evaluation import Order, ResultDetails, TaskResult, write_report
from earmark.evaluation.change_figures import evidence_sheet, neighbour_sheet, write_change_figures
from earmark.evaluation.learned_changes import (
    EvidenceExample,
    LearnedChanges,
    NeighbourExample,
    ShownMoment,
    drawn_moments,
    map_panels,
    neighbour_examples,
)
from earmark.evaluation.moment_map import MapPanel, map_figure, plane_of_means, principal_plane, projected
from earmark.evaluation.occlusion import NUM_PLACES, occlusion_map
from earmark.evaluation.order import OrderAnswers
from earmark.evaluation.order_probe import OrderProbe
from tests.helpers.made_store import add_video, finish_store

pytestmark = pytest.mark.usefixtures("one_thread")


class Corner(nn.Module):
    """Looks at the lower right sixteenth of the picture alone."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :1, :, 24:, 24:].mean(dim=(2, 3, 4)).repeat(1, 2)


def test_the_evidence_lies_where_the_encoder_looks() -> None:
    before, after = torch.zeros(3, 4, 32, 32), torch.ones(3, 4, 32, 32)
    margin, drops = occlusion_map(Corner(), before, after, np.array([1.0, 1.0]))
    assert margin == pytest.approx(2)
    assert drops.shape == (NUM_PLACES, NUM_PLACES)
    assert drops[-1, -1] == pytest.approx(2)  # covered as a whole
    assert drops[-2, -1] == pytest.approx(1)  # by half
    assert drops[:5, :].max() == drops[:, :5].max() == 0
    reverse, against = occlusion_map(Corner(), after, before, np.array([1.0, 1.0]))
    assert (reverse, against[-1, -1]) == (pytest.approx(-2), pytest.approx(-2))
    with pytest.raises(ValueError, match="one shape"):
        occlusion_map(Corner(), before, after[:, :2], np.ones(2))


def test_the_plane_is_that_of_the_covariance() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 5)) * [1, 4, 1, 2, 0]
    points, shares = principal_plane(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    assert shares == pytest.approx((100 * values[-1] / values.sum(), 100 * values[-2] / values.sum()))
    for column, axis in enumerate((-1, -2)):
        along = (vectors - vectors.mean(axis=0)) @ axes[:, axis]
        assert abs(points[:, column] @ along) == pytest.approx(along @ along)
    assert principal_plane(np.ones((4, 3)))[1] == (0.0, 0.0)
    both, _ = principal_plane(np.concatenate([vectors, -vectors]), centred=False)
    assert both[:50] == pytest.approx(-both[50:])


def test_drawn_moments_are_one_of_each_frequent_verb() -> None:
    labels = np.array([2, 2, 2, 0, 0, -1, 7])
    drawn = [drawn_moments(labels, number=2, seed=seed) for seed in range(20)]
    assert all(labels[moments].tolist() == [2, 0] for moments in drawn)
    assert len({tuple(moments) for moments in drawn}) > 1
    assert len(drawn_moments(np.full(5, -1), number=3, seed=0)) == 3


def test_the_page_shows_neighbours_maps_and_evidence(tmp_path: Path) -> None:
    rows = [add_video(tmp_path, f"v{number}", split="validation") for number in range(3)]
    finish_store(tmp_path, rows, {row.video_id: [2.0, 5.0] for row in rows})
    clips = MomentPairs(PreparedStore(tmp_path), split="validation", audio_seconds=None)
    clips.labels["verb"] = np.array([0, 1, 0, 1, 0, -1])
    task = Order(clips, clips, class_names=["<open>", "close"], train_videos=clips.video_ids)
    changes = np.array([[1.0, 0], [-1, 0], [1, 0.1], [-1, 0.1], [0.9, 0], [0, 1]])
    probe = OrderProbe(np.ones(2), np.ones(2))
    views = {"change": changes, "appearance": changes[::-1].copy()}
    answers = OrderAnswers(changes[:, 0], None, probe, views, {"probe": {}})

    def show(moment: int) -> ShownMoment:
        frames = np.full((2, 8, 12, 3), 20 * moment, np.uint8)
        verb = int(task.verbs[moment])
        name = task.class_names[verb] if verb >= 0 else ""
        return ShownMoment(clips.video_ids[moment], float(clips.times_seconds[moment]), frames, name)

    # test_videos are not given, so each moment's own video counts
    examples = neighbour_examples(task, answers, show, seed=0)
    assert [example.query.caption for example in examples] == ["<open>", "close"]
    for example in examples:
        assert example.by_change[0].caption == example.query.caption
        assert example.kind(example.by_change[0]) == "same"
        assert example.kind(example.by_change[-1]) == ("opposite" if example.opposite else "other")
        assert all(near.video_id != example.query.video_id for near in example.by_change)
    evidence = EvidenceExample(show(0), 0.5, np.eye(NUM_PLACES))
    learned = LearnedChanges(examples, [("encoder", map_panels(task, answers))], [evidence])
    page = tmp_path / "report.html"

    def written() -> str:
        write_report(
            page,
            title="a",
            summary={},
            metrics=None,
            results=TaskResult((), {}),
            examples=[],
            details=ResultDetails(learned=learned),
        )
        return page.read_text()

    text = written()
    assert text == written()
    for words in ("nearest by change", "nearest by appearance", "&lt;open&gt;", "margin +0.50: right"):
        assert words in text
    assert "<open>" not in text
    assert text.count("data:image/png") == 2  # a map for each colour of the page
    assert 'class="same"' in text
    figures = write_change_figures(tmp_path, learned)
    assert [path.name for path in figures] == ["neighbours.jpg", "map.png", "evidence.jpg"]
    written_once = [path.read_bytes() for path in figures]
    assert [path.read_bytes() for path in write_change_figures(tmp_path, learned)] == written_once


def drawn(figure: Figure) -> np.ndarray:
    """The pixels of a sheet, (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def moment(verb: str, grey: int) -> ShownMoment:
    frames = np.full((2, 60, 100, 3), grey, np.uint8)
    frames[1] += 50
    return ShownMoment("v", 1.0, frames, verb)


def test_the_sheet_of_neighbours_shows_every_frame_and_whose_verb_it_has() -> None:
    near = tuple(moment(verb, grey) for verb, grey in (("open", 20), ("close", 40), ("cut", 60)))
    picture = drawn(neighbour_sheet([NeighbourExample(moment("open", 0), near, near[:1], "close")]))
    for grey, times in ((0, 1), (20, 2), (40, 1), (60, 1)):
        for frame in (grey, grey + 50):
            assert (picture == frame).all(axis=2).sum() >= times * 50 * 80
    for colour in ((0, 158, 115), (213, 94, 0), (201, 206, 214)):  # same verb, the one that undoes it, another
        assert (picture == colour).all(axis=2).sum() >= 300


def test_the_sheet_of_evidence_colours_what_carries_it() -> None:
    drops = np.zeros((NUM_PLACES, NUM_PLACES))
    drops[0, 0] = 1.0
    picture = drawn(evidence_sheet([EvidenceExample(moment("open", 100), 2.0, drops)])).astype(int)
    covered = picture[12 + 17 : 12 + 17 + 128, 12 + 2 * 215 : 12 + 2 * 215 + 213]
    warm = covered[..., 0] - covered[..., 2] > 60
    assert warm[:10, :20].all()
    assert not warm[64:, 100:].any()


def test_a_verb_that_undoes_another_has_its_colour_and_another_marker() -> None:
    groups = ["open", "close", "cut", "", "close"]
    panel = MapPanel("change", np.random.default_rng(0).normal(size=(5, 2)), (1.0, 1.0), groups, {"close": "open"})
    (axes,) = map_figure([panel]).axes
    drawn_groups = {of.get_label(): of for of in axes.collections}
    colours = {name: of.get_facecolor()[0].tolist() for name, of in drawn_groups.items()}
    assert colours["open"] == colours["close"] != colours["cut"]
    assert len(drawn_groups["open"].get_paths()[0].vertices) != len(drawn_groups["close"].get_paths()[0].vertices)
    assert sum(len(of.get_offsets()) for of in axes.collections) == 5


def test_the_plane_of_means_is_that_of_the_scatter_between_classes() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], [9, 4, 6, 5])
    vectors = rng.normal(size=(24, 5)) + 3 * rng.normal(size=(4, 5))[labels]
    axes = plane_of_means(vectors, labels)
    known = labels >= 0
    overall = vectors[known].mean(axis=0)
    between = sum(
        np.outer(mean - overall, mean - overall) * (labels == label).sum()
        for label in range(3)
        for mean in [vectors[labels == label].mean(axis=0)]
    )
    values, directions = np.linalg.eigh(between)
    assert axes is not None
    assert np.abs(axes @ directions[:, :-3:-1]) == pytest.approx(np.eye(2), abs=1e-9)
    assert values[:-2] == pytest.approx(0, abs=1e-9)
    points, shares = projected(vectors, axes)
    assert shares == pytest.approx(100 * points.var(axis=0) / vectors.var(axis=0).sum())
    assert plane_of_means(vectors, np.minimum(labels, 1)) is None
