"""What of an index can be written for other tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bagindex.errors import SettingsError
from bagindex.questions import Questions

PathLike = str | os.PathLike[str]


def _silent(_done: int, _total: int) -> None:
    """Hears of the progress, and tells nobody."""


class ExportQuestions(Questions):
    """Exports. Each is written aside and then renamed: a failure leaves what was there."""

    def export_query(self, query: str, path: PathLike, *, progress: Callable[[int], None] = lambda _rows: None) -> int:
        """Write the rows of a query, which may be more than fit into memory.

        Args:
            query: as for `sql`.
            path: a `.parquet`, `.arrow` (an IPC file), `.csv` or `.jsonl` (an object on each line).
            progress: hears how many rows are written.

        Returns:
            How many rows there are.

        Raises:
            QueryError: as for `sql`.
            OutputError: another ending, or the file cannot be written.
        """
        from bagindex.exports.rows import write_rows

        return write_rows(self._catalog, query, Path(path), progress)

    def export_summary(self, path: PathLike, *, progress: Callable[[int, int], None] = _silent) -> int:
        """Write an index of summaries, without pixels and features, as one archive to share: `Index.open` opens it as
        it is.

        Args:
            path: a `.zip`.
            progress: hears how many of how many shards are copied.

        Returns:
            Its bytes.

        Raises:
            OutputError: another ending, or the file cannot be written.
            IncompleteIndexError: the index is being built.
        """
        from bagindex.exports.portable import write_portable

        return write_portable(self._directory, self._catalog, Path(path), progress)

    def export_sqlite(
        self,
        path: PathLike,
        *,
        top: int = 20,
        image_evidence: bool = True,
        progress: Callable[[str, int, int], None] = lambda _table, _done, _total: None,
    ) -> dict[str, int]:
        """Write a SQLite database, ready for Datasette: classes, models, images, rejects, predictions, the strongest
        patches with their pictures, and each image's strongest patch for each class.

        Args:
            path: a `.db`, `.sqlite` or `.sqlite3`.
            top: so many patches of each class, in images of the class and of others each.
            image_evidence: whether to write `image_evidence`, which has a row for each class and image.
            progress: hears of which table how many of how many rows are written.

        Returns:
            How many rows each table has.

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        from bagindex.exports.sqlite import Contents, write_sqlite

        return write_sqlite(self, Contents(_least(top, 0, "--top"), image_evidence), Path(path), progress)

    def export_fiftyone(
        self,
        folder: PathLike,
        *,
        patches: int = 5,
        where: str | None = None,
        source: PathLike | None = None,
        model: str | None = None,
        progress: Callable[[int, int], None] = _silent,
    ) -> int:
        """Write a data set that FiftyOne opens: images with label and prediction, their strongest patches as
        detections. See `bagindex.exports.fiftyone.write_fiftyone`.

        Args:
            folder: it is not there yet, or empty.
            patches: how many of an image, for its predicted class and its label each.
            where: a condition on images, as for `top_patches`.
            source: the folder of the original files, to show these; by default the stored inputs are written beside.
            model: which model; may be left out where there is one.
            progress: hears how many of how many images are written.

        Returns:
            How many images there are.

        Raises:
            QueryError: as for `top_patches`; NotKeptError: neither pixels are kept, nor is `source` given.
            OutputError: there is something, or the folder cannot be written.
        """
        from bagindex.exports.fiftyone import Detected, write_fiftyone

        wanted = Detected(_least(patches, 1, "--patches"), where, None if source is None else Path(source))
        return write_fiftyone(self, self._model(model), wanted, Path(folder), progress)

    def export_features(
        self,
        path: PathLike,
        *,
        tool: str = "embedding-atlas",
        sample: int = 5000,
        class_: str | int | None = None,
        where: str | None = None,
        seed: int = 0,
        model: str | None = None,
        progress: Callable[[int, int], None] = _silent,
    ) -> int:
        """Write features of a sample of patches, with their pictures and evidence, for a tool that makes a map of them.

        Args:
            path: for the Embedding Atlas a `.parquet`; for the projector a folder that is not there yet, or empty.
            tool: `embedding-atlas` (Apple's) or `projector` (TensorBoard's).
            sample: how many patches, drawn evenly from all.
            class_: the class whose evidence is given; by default, for each patch, the one that it speaks most for.
            where: a condition on images, as for `top_patches`.
            seed: of the draw.
            model: which model; may be left out where there is one.
            progress: hears how many of how many patches are written.

        Returns:
            How many patches there are.

        Raises:
            SettingsError: there is no such tool.
            NotKeptError: the index keeps no features.
            QueryError: as for `top_patches`; the projector has no room for so many.
            OutputError: there is something, or it cannot be written.
        """
        from bagindex.exports.embedding_atlas import write_embedding_atlas
        from bagindex.exports.projector import write_projector
        from bagindex.exports.sampled import Sample

        writers = {"embedding-atlas": write_embedding_atlas, "projector": write_projector}
        if tool not in writers:
            raise SettingsError(f"features are written for {' or '.join(writers)}, not for {tool!r}")
        chosen = Sample(_least(sample, 1, "--sample"), None if class_ is None else self.find_class(class_), where, seed)
        return writers[tool](self, self._model(model), chosen, Path(path), progress)


def _least(value: int, least: int, option: str) -> int:
    if value < least:
        raise SettingsError(f"{option} is a number from {least} on, not {value}")
    return value
