"""Prints the results of check.sh as tables for docs/benchmarks.md.

python tests/gpu/table.py RESULTS.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def tables(results: list[dict[str, Any]]) -> str:
    """A table for each kind of result, with a column for each of its keys."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        kinds[str(result.get("check", "peers"))].append(result)
    return "\n\n".join(_table(kind, rows) for kind, rows in kinds.items())


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "check"))
    lines = [kind, "", _line(keys), _line(["---"] * len(keys))]
    return "\n".join([*lines, *(_line([row.get(key, "") for key in keys]) for row in rows)])


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    print(tables([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]))
