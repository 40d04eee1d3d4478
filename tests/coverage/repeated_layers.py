"""Compares each graph whose layers are repeated with a whole trace: of all models of texts, made deep.

    python -m tests.coverage.repeated_layers [TYPE…]

It takes an hour. Each line is a type, how many of its layers were traced, and what came of it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch
import transformers

from tests.coverage import model_types
from tests.coverage.checkpoints import build, first_line
from tests.coverage.configs import VOCAB
from tests.helpers.same_graphs import computed
from triform.export.graph import tracing
from triform.models.decoder.graph import decoder_spec
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder_decoder.graph import EncoderInputs, encoder_decoder_specs
from triform.models.spec import EncoderTask, GraphSpec

# Enough that kinds of layers come again where every sixth is of another kind.
_LAYERS, _CONTEXT = 12, 64
_CLASSES = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder": transformers.AutoModel,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}
_STATES = EncoderTask(
    ("input_ids", "attention_mask"), lambda results: {"last_hidden_state": results["last_hidden_state"]}
)


def main() -> int:
    """Compare all types, or those that the command line names; 1 if a graph is another."""
    pairs = [
        *(("decoder", name) for name in model_types.decoders()),
        *(("encoder", name) for name in model_types.encoders()),
        *(("encoder-decoder", name) for name in model_types.rewriting()),
    ]
    chosen = [pair for pair in pairs if len(sys.argv) == 1 or pair[1] in sys.argv[1:]]
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for form, name in chosen:
            for result in pool.submit(_compared, form, name).result():
                counts[result.partition(":")[0]] += 1
                print(f"{form} {name}: {result}", flush=True)
    print(*(f"{result}: {count}" for result, count in counts.most_common()), sep="\n")
    return int("DIFFERENT" in counts)


def _compared(form: str, name: str) -> list[str]:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    try:
        with _specs(form, name) as specs:
            return [_compared_with_whole(spec) for spec in specs]
    except Exception as error:  # of a type that cannot be made or traced, whatever it is
        return [f"not traced: {first_line(error)}"]


@contextmanager
def _specs(form: str, name: str) -> Iterator[Sequence[GraphSpec]]:
    model = build(name, _CLASSES[form], _LAYERS).eval().float()
    if form == "encoder-decoder":
        specs, stack = encoder_decoder_specs(model, _sources(), _CONTEXT)
        both = [specs.encoder, specs.decoder]
    else:
        spec, stack = (
            decoder_spec(model, _CONTEXT) if form == "decoder" else encoder_spec(model, _STATES, "encoder", _CONTEXT)
        )
        both = [spec]
    with stack:
        yield both


def _sources() -> EncoderInputs:
    ids = torch.randint(4, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    axes = ((0, "batch"), (1, "source"))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return EncoderInputs({"input_ids": ids, "attention_mask": mask}, {"input_ids": axes, "attention_mask": axes})


def _compared_with_whole(spec: GraphSpec) -> str:
    if spec.alike is None:
        return f"no layers alike: the {spec.name}"
    traces: list[Any] = []
    trace_one = tracing._traced
    tracing._traced = lambda *arguments: traces.append(arguments) or trace_one(*arguments)
    graph = computed(tracing.trace(spec))
    tracing._traced = trace_one
    if graph != computed(tracing.trace(dataclasses.replace(spec, alike=None))):
        return f"DIFFERENT: the {spec.name}"
    how = "the same" if len(traces) == 1 else "traced as a whole"
    return f"{how}: {spec.alike.traced} of {len(spec.alike.layers)} layers of the {spec.name} traced"


if __name__ == "__main__":
    sys.exit(main())
