"""Audible Kitchen as a data set: EPIC-KITCHENS-100 files over generated videos, and the truth of every sound."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from earmark.datasets.epic_kitchens import EpicKitchens
from earmark.datasets.records import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Kitchen", "KitchenPreset"]

KitchenPreset = Literal["demo", "tiny", "small", "standard", "large"]
"""Names of `earmark.kitchen.PRESETS`, here because the generator is slow to import."""


class Kitchen(EpicKitchens):
    """A generated kitchen.

    Args:
        base_path: Folder that `earmark kitchen` wrote.

    Attributes:
        name: ``kitchen``.

    Raises:
        DatasetError: If the folder is not a generated kitchen.

    Example:
        >>> Kitchen("earmark_data/kitchen/small").events().num_rows  # doctest: +SKIP
        1234
    """

    name = "kitchen"

    def __init__(self, base_path: str | os.PathLike[str]) -> None:
        if not Path(base_path, "kitchen.json").is_file():
            raise DatasetError(f"{base_path}: not a generated kitchen (kitchen.json is missing)")
        if not Path(base_path, "events.parquet").is_file():
            raise DatasetError(f"{base_path}: this kitchen is not finished; generate it again with the same options")
        super().__init__(base_path)

    def events(self) -> "pa.Table":
        """Return the table of events: what happened when in which video, seen and heard.

        Raises:
            DatasetError: If the table is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.base_path / "events.parquet"
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{path}: not a readable table of events ({error})") from error
