"""What came of one type, and the file that keeps it: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

WORKS = "works"
REFUSED = "refused"
NOT_TRIED = "not tried"
# The remark of a type that other tests compare, with another config than the sweep's.
BY_OTHER_TESTS = "compared in the tests of families"
# The remark of a type that reads where words stand.
GIVEN_PAGES = "given pages"
# Every other result is a fault of Triform.
RESULTS = (WORKS, REFUSED, "differs", "other form", "parity", "internal error", "timeout", "out of memory", NOT_TRIED)


@dataclass(frozen=True)
class Record:
    """What came of one type.

    Attributes:
        form: what it was tried as, a key of `FORMS`.
        name: of the type, or of a variant of it with a plus sign.
        result: one of `RESULTS`.
        reason: why, for any result but `WORKS`; for that, a remark or nothing.
        task: of the bundle; empty without one.
        operators: of the bundle's graphs, those that are not plain ONNX, in alphabetical order.
        seconds: that it took.
    """

    form: str
    name: str
    result: str
    reason: str = ""
    task: str = ""
    operators: list[str] = field(default_factory=list)
    seconds: float = 0.0


def read(path: Path) -> dict[tuple[str, str], Record]:
    """The last record of each form and name, in the order of the file; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [Record(**json.loads(line)) for line in lines]
    return {(record.form, record.name): record for record in records}


def append(path: Path, record: Record) -> None:
    """Add a record to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
