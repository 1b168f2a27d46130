"""``features.json`` of a folder of features: how all of it was made, which videos are there, which are not and why.

Path of a sample: features of a video --file--> the folder that `earmark.evaluation.feature_writing` writes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from earmark.atomic import replacing
from earmark.clips.windows import WindowPlan
from earmark.evaluation.feature_files import FORMAT_VERSION
from earmark.json_text import read_json

__all__ = ["PARTS_FOLDER", "FeatureIndex", "FeatureSettingsError", "compared_settings"]

INDEX_FILE = "features.json"
PARTS_FOLDER = ".parts"
_MAX_INDEX_BYTES = 2**30


class FeatureSettingsError(ValueError):
    """A folder holds features of another model or other settings, or cannot be used; the message says what differs."""


class FeatureIndex:
    """``features.json`` of a folder; parts of the work on several machines write it in turns."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = out / INDEX_FILE, settings
        self._lock = FileLock(out / PARTS_FOLDER / "index.lock", is_singleton=False)

    def claim(self) -> None:
        """Make the folder one of these settings, or say why it can't be.

        Raises:
            FeatureSettingsError: If it holds features of others.
        """
        with self._lock:
            content = self._read()
            if content is not None:
                differing = _differences(compared_settings(content["settings"]), compared_settings(self._settings))
                if differing:
                    raise FeatureSettingsError(
                        f"{self._path.parent}: holds features of other settings: {'; '.join(differing)}. Choose "
                        "another folder"
                    )
                return
            strays = [path for path in self._path.parent.iterdir() if not path.name.startswith(".")]
            if strays:
                raise FeatureSettingsError(
                    f"{self._path.parent}: is not empty, and not a folder of features ({strays[0].name}, and no "
                    f"{INDEX_FILE}). Choose another folder"
                )
            self._write({"videos": {}, "failed": {}, "left_out": {}, "places_left_out": {}})

    def update(
        self,
        mine: Mapping[str, Path],
        failed: Mapping[str, str],
        *,
        plan: WindowPlan,
        made: Mapping[str, int],
    ) -> int:
        """Write what there is now; return how many videos of other parts have no features yet."""
        with self._lock:
            before = self._read() or {"videos": {}, "failed": {}}
            others = {windows.video_id for windows in plan.videos} - mine.keys()
            settled = {*mine, *plan.left_out}  # of what was there from another data set, nothing is forgotten
            videos = {name: entry for name, entry in before["videos"].items() if name not in settled}
            problems = {name: reason for name, reason in before["failed"].items() if name not in settled}
            for name in made:
                file = mine[name].relative_to(self._path.parent).as_posix()
                videos[name] = {"file": file, "num_rows": made[name]}
            problems.update(failed)
            self._write(
                {
                    "videos": videos,
                    "failed": problems,
                    "left_out": dict(plan.left_out),
                    "places_left_out": dict(plan.places_left_out),
                }
            )
            return len(others - videos.keys() - problems.keys())

    def _read(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        try:
            content = read_json(self._path, max_bytes=_MAX_INDEX_BYTES)
            version = content["settings"]["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(f"of format {version!r}; this Earmark writes {FORMAT_VERSION}")
            if not isinstance(content["videos"], dict) or not isinstance(content["failed"], dict):
                raise ValueError("its lists are none")
            compared_settings(content["settings"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FeatureSettingsError(f"{self._path}: not the index of a folder of features ({error})") from error
        return dict(content)

    def _write(self, content: Mapping[str, Any]) -> None:
        with replacing(self._path) as temporary:
            text = json.dumps({"settings": self._settings, **content}, indent=1, sort_keys=True, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def compared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without what does not change the features: the version, and what a model is called."""
    encoders = {
        modality: {name: value for name, value in encoder.items() if name != "model"}
        for modality, encoder in settings["encoders"].items()
    }
    kept = {name: value for name, value in settings.items() if name != "earmark"}
    return json.loads(json.dumps({**kept, "encoders": encoders}))  # type: ignore[no-any-return]


def _differences(there: Any, here: Any, prefix: str = "") -> list[str]:
    """Return in words which settings differ."""
    differing = []
    for name in sorted({*there, *here}):
        one, other = there.get(name), here.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            differing += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            shown = ["none" if value is None else f"{str(value)[:40]}" for value in (one, other)]
            differing.append(f"{prefix}{name} {shown[0]}, not {shown[1]}")
    return differing
