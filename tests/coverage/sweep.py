"""Tries every type: `make coverage`, or `python -m tests.coverage.sweep --forms decoder --only llama,bert`.

Each result is written as it comes, and what has one is not tried again, so that a sweep goes on where it was stopped.
Ctrl-C stops it. With `--quantize int8` weights are quantized, and what that loses is compared with what rounding the
same weights in PyTorch loses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers

from tests.coverage.forms import FORMS
from tests.coverage.isolation import isolated_attempt
from tests.coverage.quantized import FLOAT32, Scheme
from tests.coverage.records import RESULTS, append, read

RESULTS_FILE = Path(".cache/coverage.jsonl")


def main() -> None:
    """Try the types that the command line names and that have no result yet."""
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    scheme: Scheme = arguments.quantize
    results = arguments.results or results_file(scheme)
    known = read(results)
    done = {key for key, record in known.items() if record.result not in arguments.again}
    for form, name in _chosen(arguments.forms, arguments.only):
        if (form, name) in done:
            continue
        record = isolated_attempt(form, name, arguments.seconds, arguments.gigabytes, arguments.keep, scheme)
        append(results, record)
        print(f"{record.seconds:6} {form} {name}: {record.result} {record.reason}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", type=_names, default=list(FORMS), help=f"of {', '.join(FORMS)}")
    parser.add_argument("--only", type=_names, help="types and variants, separated by commas")
    parser.add_argument("--again", type=_names, default=[], help=f"results to try again, of {', '.join(RESULTS)}")
    parser.add_argument(
        "--quantize", type=_scheme, default=FLOAT32, help="none, int8, int4, or a goal in bits a weight, such as 5"
    )
    parser.add_argument(
        "--results", type=Path, help="the file of results, one JSON object a line; one a scheme if not given"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoints and bundles")
    parser.add_argument("--seconds", type=int, default=240, help="that one type may take")
    parser.add_argument("--gigabytes", type=int, default=12, help="of memory that one type may take")
    return parser


def results_file(scheme: Scheme) -> Path:
    """Where the results of a scheme are kept."""
    return RESULTS_FILE if scheme == FLOAT32 else RESULTS_FILE.with_stem(f"{RESULTS_FILE.stem}-{scheme.name}")


def _scheme(text: str) -> Scheme:
    Scheme(text).options()
    return Scheme(text)


def _names(text: str) -> list[str]:
    return text.split(",")


def _chosen(forms: list[str], only: list[str] | None) -> list[tuple[str, str]]:
    unknown = sorted(set(forms) - set(FORMS))
    if unknown:
        raise SystemExit(f"no form is called {', '.join(unknown)}; there are: {', '.join(FORMS)}")
    pairs = [(form, name) for form in forms for name in FORMS[form].names()]
    missing = sorted(set(only or []) - {name for _, name in pairs})
    if missing:
        raise SystemExit(f"transformers has no {', '.join(missing)} among {', '.join(forms)}")
    return [(form, name) for form, name in pairs if only is None or name in only]


if __name__ == "__main__":
    main()
