"""`earmark score`: tables, JSON, faults and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.main import main
from tests.helpers.challenge_files import (
    action_submission,
    sound_submission,
    write_epic_annotations,
    write_sound_annotations,
)
from tests.helpers.ego4d_files import ego4d_submissions, write_ego4d_challenges


def saved(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_valid_file_is_scored_beside_the_majority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "x.json", action_submission(write_epic_annotations(tmp_path)))
    assert main(["score", file, "--annotations", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "all_verb_accuracy_at_1" in shown
    assert "majority of EPIC_100_validation.csv" in shown
    assert "valid: 6 segments, 3 unseen, 2 tail verb, 2 tail noun, 3 tail action; sls_pt 4" in shown
    assert main(["score", file, "--annotations", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["valid"] is True
    assert printed["majority"]["all_verb_accuracy_at_1"] == 50.0
    assert printed["counts"]["unseen"] == 3


def test_sounds_are_scored_with_and_without_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "x.json", sound_submission(write_sound_annotations(tmp_path)))
    assert main(["score", file, "--annotations", str(tmp_path / "EPIC_Sounds_validation.csv")]) == 0
    shown = capsys.readouterr().out
    assert "valid: 4 segments, 1 background, 3 without background" in shown
    assert "all_interaction_mAUC_with_background" in shown


def test_an_invalid_file_ends_with_one_and_names_twenty_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = action_submission(write_epic_annotations(tmp_path))
    content["results"] |= {f"z_{number}": 0 for number in range(30)}
    file = saved(tmp_path / "x.json", content)
    assert main(["score", file, "--annotations", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 21
    assert "segment 'z_0': the annotations have no such segment" in err
    assert err.splitlines()[-1] == "earmark score: 10 more of this kind"
    assert main(["score", file, "--annotations", str(tmp_path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["valid"] is False
    assert len(printed["faults"]) == 30


def test_missing_annotations_are_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "x.json", action_submission(["a"]))
    assert main(["score", file, "--annotations", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"earmark score: {tmp_path / 'none'}: no such file or folder\n"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (
            "oscc",
            ("ego4d_oscc", "accuracy 50.00 50.00 %", "majority of", "valid: 2 clips, 1 with a change"),
        ),
        ("pnr", ("ego4d_pnr", "error_seconds 0.3333 0.6667 s", "centre frame", "valid: 2 clips, 1 with a change")),
        (
            "lta",
            ("ego4d_lta", "verb_ED@20 0.0000 0.0000 0.0000 share", "last action", "valid: 1 windows, 4 seen"),
        ),
    ],
)
def test_files_for_ego4d_are_scored_beside_what_needs_no_model(
    tmp_path: Path, kind: str, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_ego4d_challenges(tmp_path)
    file = saved(tmp_path / "x.json", ego4d_submissions()[kind])
    assert main(["score", file, "--annotations", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in shown:
        assert text in printed
    assert not printed.endswith(";")
    assert main(["score", file, "--annotations", str(tmp_path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["challenge"] == f"ego4d_{kind}"
    assert content["annotations"].startswith(str(tmp_path / "v2/annotations"))
    assert content["metrics"].keys() == {**content["majority"], **next(iter(content["baselines"].values()), {})}.keys()


def test_faults_of_a_file_for_ego4d_are_named_by_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ego4d_challenges(tmp_path)
    rows = [row | {"state_change": "\x1b[31myes"} for row in ego4d_submissions()["oscc"]]
    assert main(["score", saved(tmp_path / "x.json", rows), "--annotations", str(tmp_path)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(
        f"earmark score: {tmp_path / 'x.json'}, clip 'u1': state_change is '\\x1b[31myes', expected"
    )
    assert "clip 'u2'" in second
