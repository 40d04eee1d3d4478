"""The folder that a batch writes: `run.json`, a Parquet file for each block in ``rows/``, and `errors.parquet`.

A block's file gets its name when it is whole, so that a block with a file is done. It has a row for each row of the
input, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triform.cli.batch.units import Unit
from triform.cli.outputs.part_file import locked_file
from triform.cli.outputs.run_log import difference
from triform.runtime.batch.predictor import ERROR
from triform.runtime.errors import InputError
from triform.runtime.files import whole_file
from triform.runtime.printable import shortened

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as parquet

INPUT_FILE, INPUT_ROW = "input_file", "input_row"
_RUN, _LOCK = "run.json", ".lock"
# Of an input's name in the name of a file; file systems allow 255 bytes.
_LONGEST = 60


@dataclass(frozen=True)
class OutputFolder:
    """The folder of one batch.

    Attributes:
        path: of the folder, absolute.
        digests: of everything that its results depend on, see `Run`.
    """

    path: Path
    digests: Mapping[str, str]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder if there is none, and keep other runs out of it until the context ends.

        Raises:
            InputError: it cannot be written, or another run is writing it.
        """
        new, lock = not self.path.exists(), self.path / _LOCK
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made: {error.strerror}") from None
        with locked_file(lock, self.path):
            try:
                yield
            finally:
                # Windows removes no open files, and there it stays.
                with suppress(OSError):
                    lock.unlink()
                if new:
                    # If nothing was written. The system refuses it otherwise.
                    with suppress(OSError):
                        self.path.rmdir()

    def begin(self) -> None:
        """Check that the folder was made by the same run; one without results is taken over. Call it inside `alone`.

        Raises:
            InputError: it holds something else, or the results of another run.
        """
        run, rows = self.path / _RUN, self.path / "rows"
        if run.exists() and any(rows.glob("*.parquet")):
            self._check(run)
            return
        try:
            known = (_RUN, "rows", "errors.parquet") if run.exists() else ("rows",)
            names = [entry.name for entry in self.path.iterdir()]
            # Hidden files are those that a killed run was writing.
            others = [name for name in names if name not in known and not name.startswith(".")]
            if not others:
                rows.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made: {error.strerror}") from None
        if others or (not run.exists() and any(rows.iterdir())):
            raise InputError(f"{self.path} holds other files, such as {(others or ['rows'])[0]}: name a new folder")
        with whole_file(run) as file:
            file.write(json.dumps(dict(self.digests), indent=1).encode())

    def block(self, unit: Unit, start: int, count: int) -> Path:
        """The file for `count` rows of a unit's input, from row `start` on."""
        name = unit.name.encode()[:_LONGEST].decode(errors="ignore")
        return self.path / "rows" / f"{unit.place:05}_{name}_{start:012}-{start + count:012}.parquet"

    def write_errors(self) -> tuple[int, str]:
        """Write the rows without results, and why they have none, to `errors.parquet`.

        Returns:
            how many there are, and where the first is and why it failed; empty without one.
        """
        import pyarrow as pa
        import pyarrow.parquet as parquet

        kind = pa.schema([(INPUT_FILE, pa.string()), (INPUT_ROW, pa.int64()), (ERROR, pa.string())])
        count, first = 0, ""
        with (
            whole_file(self.path / "errors.parquet") as file,
            parquet.ParquetWriter(file, kind, compression="zstd") as errors,
        ):
            for table in self._failed(kind):
                errors.write_table(table)
                if not count:
                    row = table.slice(0, 1).to_pylist()[0]
                    first = f"row {row[INPUT_ROW]} of {row[INPUT_FILE]}: {row[ERROR]}"
                count += len(table)
        return count, first

    def _failed(self, kind: pa.Schema) -> Iterator[pa.Table]:
        import pyarrow.compute as compute
        import pyarrow.parquet as parquet

        for path in sorted((self.path / "rows").glob("*.parquet")):
            with _reading_block(path), parquet.ParquetFile(path) as file:
                if not _has_errors(file.metadata):
                    continue
                table = file.read(kind.names)
            yield table.filter(compute.is_valid(table.column(ERROR))).cast(kind)

    def _check(self, run: Path) -> None:
        try:
            earlier = json.loads(run.read_bytes())
        except (OSError, ValueError, RecursionError):
            earlier = None
        if not isinstance(earlier, dict):
            raise InputError(f"{run} is damaged: name a new folder")
        what = difference(self.digests, earlier)
        if what is not None:
            raise InputError(
                f"{self.path} has the results of a run with {what}: repeat that run's command to continue it, or name "
                "a new folder"
            )


@contextmanager
def _reading_block(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, pa.ArrowException) as error:
        # Arrow's errors of a few lines repeat the file's name.
        raise _damaged(path, getattr(error, "strerror", None) or shortened(str(error).splitlines()[0])) from None


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason}); delete it, and the same command computes its rows again")


def _has_errors(metadata: parquet.FileMetaData) -> bool:
    """Whether some value of the last column, which is the errors', is not null."""
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(metadata.num_columns - 1)
        statistics = column.statistics
        if statistics is None or statistics.null_count != column.num_values:
            return True
    return False
