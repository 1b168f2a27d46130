"""Configurations are data: nothing that one names is run, whichever way it comes in."""

from pathlib import Path

import pytest

from earmark.cli.config import ConfigError, compose
from earmark.cli.hydra_app import run_application
from earmark.cli.main import main

NAMES_CODE = {
    "callback": ("hydra.callbacks.a", "callbacks: {a: {_target_: os.mkdir, path: canary}}"),
    "launcher": (r"hydra.launcher._target_", "launcher: {_target_: os.mkdir}"),
    "part of the sweeper": (
        r"hydra.sweeper.params.a._target_",
        "sweeper: {params: {a: {_target_: os.mkdir}}}",
    ),
    "logging class": (
        "hydra.job_logging.handlers.a.class",
        "job_logging: {handlers: {a: {class: os.mkdir, path: canary}}}",
    ),
    "logging factory": (
        r"hydra.hydra_logging.formatters.a.\(\)",
        "hydra_logging: {formatters: {a: {(): os.mkdir, path: canary}}}",
    ),
    "interpolation": ("hydra.job_logging.handlers", "job_logging: {handlers: '${backbone}'}"),
}


@pytest.mark.parametrize("how", NAMES_CODE)
def test_code_in_a_file_of_hydra_is_refused_by_its_key(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, content = NAMES_CODE[how]
    (tmp_path / "configs" / "mine").mkdir(parents=True)
    (tmp_path / "configs" / "mine" / "a.yaml").write_text(f"# @package _global_\nhydra:\n  {content}\n")
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    with pytest.raises(ConfigError, match=key):
        run_application("pretrain", ["--config-dir", "configs", "+mine=a"], lambda *_: ran.append("the job"))
    assert not ran
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs"]


def test_code_on_the_command_line_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.callbacks\.a: "):
        compose("default_ssrl", ["+hydra.callbacks.a={_target_: os.mkdir, path: canary}"])
    with pytest.raises(ConfigError, match=r"_target_: no such key"):
        compose("default_ssrl", ["backbone.video._target_=os.mkdir"])


def test_the_usual_launchers_and_loggers_are_let_through() -> None:
    for overrides in ([], ["hydra/job_logging=disabled"], ["hydra.job_logging.handlers.file.filename=a.log"]):
        assert compose("default_ssrl", overrides)["optim"]


def test_a_run_folder_cannot_have_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "object": "optim: !!python/object/apply:os.mkdir [canary]\n",
        "target": "optim: {epochs: 2}\nhydra: {callbacks: {a: {_target_: os.mkdir, path: canary}}}\n",
        "resolver": "optim: {epochs: '${os.mkdir:canary}'}\n",
    }.items():
        folder = tmp_path / "data" / "outputs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(text)
    assert main(["runs", "--data-dir", "data", "--json"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_hydra_itself_blocks_the_best_known_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lower bound in pyproject.toml is the first version for which this holds."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    monkeypatch.chdir(tmp_path)
    for config in (
        {"_target_": "os.system", "command": "mkdir canary"},
        {"_target_": "posix.system", "command": "mkdir canary"},
        {"_target_": "subprocess.call", "_args_": [["mkdir", "canary"]]},
        {"_target_": "builtins.eval", "_args_": ["__import__('os').mkdir('canary')"]},
    ):
        with pytest.raises(InstantiationException, match="blocklisted"):
            instantiate(config)
    assert not list(tmp_path.iterdir())
