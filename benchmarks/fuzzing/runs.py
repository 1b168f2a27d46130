"""Damaged run folders, among good ones: `earmark runs` as a table and as JSON.

It is right where every good run is told as it is without the damaged one, and the JSON is JSON.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

from fuzzing.mutations import edited_bytes, edited_text, edited_tree, json_text, nested
from fuzzing.running import Input, Kind, UnhandledError, WrongError, run_command

STEPS = [{"kind": "step", "step": n, "epoch": 1, "loss": 3.0 - n / 10, "lr": 0.1} for n in range(1, 4)]
LINES = [
    *STEPS,
    {"kind": "epoch", "step": 3, "epoch": 1, "loss": 2.5},
    {"kind": "probe", "step": 3, "epoch": 1, "verb_top1": 30.0, "noun_top1": 10.0},
]
RESULTS = {
    "columns": [{"column": "verb", "num_test_videos": 12, "top1": {"encoder": {"value": 40.0, "low": 35, "high": 45}}}],
    "weights": "ema",
    "cautions": ["few videos"],
}
CONFIGS = {
    "an alias bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "a cycle": "optim: &o\n  epochs: 2\n  again: *o\n",
    "a cycle of lists": "&a [*a]\n",
    "a python object": "optim: !!python/object/apply:os.system ['touch ../../escaped']\n",
    "an interpolation of itself": "optim:\n  epochs: ${optim.epochs}\n",
    "an environment variable": "optim:\n  epochs: ${oc.env:HOME}\n",
    "an unknown resolver": "optim:\n  epochs: ${nothing:1}\n",
    "a number of many digits": f"optim:\n  epochs: {'9' * 5000}\n",
    "infinite": "optim:\n  epochs: .inf\n",
    "negative": "optim:\n  epochs: -3\n",
    "keys twice": "optim:\n  epochs: 2\noptim: 3\n",
    "a list": "- optim\n",
    "a text": "optim\n",
    "nothing": "",
    "deep": "[" * 3000 + "]" * 3000,
    "deep mapping": "".join(" " * n + "a:\n" for n in range(800)),
    "a date": "optim:\n  epochs: 2001-01-01\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a tag": "optim: !a b\n",
}


class Runs(Kind):
    """Two good runs and one that is damaged."""

    name = "runs"

    def make(self, folder: Path) -> None:
        self._root = folder / "data"
        for name in ("good_a", "good_b", "middle"):
            _make_run(self._root / "outputs" / name, name)
        _, self._table, _ = run_command(["runs", "--data-dir", str(self._root)], folder)
        _, text, _ = run_command(["runs", "--data-dir", str(self._root), "--json"], folder)
        self._good = {run["name"]: run for run in json.loads(text) if run["name"].startswith("good")}

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        root = folder / "data"
        shutil.copytree(self._root, root)
        run = root / "outputs" / "middle"
        told = draw.choice((_damaged_config, _damaged_metrics, _damaged_metrics, _damaged_results, _damaged_entry))(
            run, draw
        )

        def attempt() -> None:
            code, table, err = run_command(["runs", "--data-dir", str(root)], folder)
            json_code, text, _ = run_command(["runs", "--data-dir", str(root), "--json"], folder)
            if code or json_code:
                raise WrongError(f"ends with {code} and {json_code}, and two runs are good: {err.strip()[-60:]}")
            for name in self._good:
                if _line(table, name) != _line(self._table, name):
                    raise WrongError("the table tells other things of a good run")
            runs = json.loads(text, parse_constant=_refused_constant)
            found = {one["name"]: one for one in runs}
            if any(found.get(name) != expected for name, expected in self._good.items()):
                raise WrongError("the JSON tells other things of a good run")
            if "\x1b" in table or "\x1b" in err or "\x1b" in text:
                raise WrongError("control characters reach the terminal")
            if "middle" not in found and "middle" not in err:
                raise UnhandledError("the damaged run is told of nowhere")

        return Input(told, attempt, (str(root),))


def _make_run(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"optim": {"epochs": 2, "lr": 0.1}, "logging": {"name": name}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "evaluation").mkdir()
    checkpoint = f"outputs/{name}/checkpoints/checkpoint_0001.pt"
    config = {"logging": {"name": name}, "evaluate": {"split": "validation"}}
    results = json.dumps(RESULTS | {"checkpoint": checkpoint, "config": config})
    (folder / "evaluation" / "results.json").write_text(results)


def _line(table: str, name: str) -> list[str]:
    """Return the words of a run's first line; columns may be wider for another run."""
    line = next((line for line in table.splitlines() if f" {name} " in line), "")
    return [cell.strip() for cell in line.strip("│┃ ").split("│")]


def _refused_constant(name: str) -> Any:
    raise WrongError(f"prints {name}, which is not JSON")


# --- damage ---


def _damaged_config(run: Path, draw: random.Random) -> str:
    path = run / "config.yaml"
    how = draw.choice(("made", "made", "tree", "bytes", "text", "not UTF-8"))
    if how == "made":
        how = draw.choice(sorted(CONFIGS))
        path.write_text(CONFIGS[how])
    elif how == "tree":
        tree, told = edited_tree(yaml.safe_load(path.read_text()), draw)
        path.write_text(json_text(tree))
        how = told
    elif how == "bytes":
        data, how = edited_bytes(path.read_bytes(), draw)
        path.write_bytes(data)
    elif how == "text":
        text, how = edited_text(path.read_text(), draw)
        path.write_text(text)
    else:
        path.write_bytes(path.read_bytes() + b"# \xff\xfe\xc3\x28\n")
    return f"config.yaml: {how}"


def _damaged_metrics(run: Path, draw: random.Random) -> str:
    path = run / "metrics.jsonl"
    if draw.random() < 0.25:
        data, told = edited_bytes(path.read_bytes(), draw)
        path.write_bytes(data)
        return f"metrics.jsonl: {told}"
    lines: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
    number = draw.randrange(len(lines))
    lines[number], told = edited_tree(lines[number], draw)
    if draw.random() < 0.1:
        lines[number], told = nested(100_000), "deep"
    path.write_text("".join(json_text(line) + "\n" for line in lines))
    return f"metrics.jsonl, line {number + 1}: {told}"


def _damaged_results(run: Path, draw: random.Random) -> str:
    path = run / "evaluation" / "results.json"
    if draw.random() < 0.25:
        data, told = edited_bytes(path.read_bytes(), draw)
        path.write_bytes(data)
    else:
        tree, told = edited_tree(json.loads(path.read_text()), draw)
        path.write_text(json_text(tree))
    return f"results.json: {told}"


def _damaged_entry(run: Path, draw: random.Random) -> str:
    """A folder where a file should be, a link to nowhere, a name that no terminal should be shown."""
    name = draw.choice(("config.yaml", "metrics.jsonl", "evaluation/results.json"))
    how = draw.choice(("folder", "link", "gone", "empty", "name", "circle"))
    path = run / name
    if how == "name":
        new = draw.choice(
            ("middle\x1b[31m", "middle\n", "middle[red]", "middle" + "é" * 60, "middle\udcff", "middle\u202e")
        )
        run.rename(run.with_name(new))
        return f"the run is called {new!r}"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to("/nowhere/at/all")
    elif how == "circle":
        path.symlink_to(path.name)
    elif how == "empty":
        path.touch()
    return f"{name}: {how}"


KIND = Runs()
