"""The commands, and how each is made when it is used."""

from __future__ import annotations

from importlib import import_module

import typer

from triform.cli.arguments.bundle import default_bundle
from triform.cli.configuration.command import ConfiguredCommand
from triform.cli.configuration.settings import Table

# Name to module; each module has one function of the command's name. Their help lines are repeated here so that
# `triform --help` need not import them.
COMMAND_MODULES = {
    "export": ("bundle.export", "Export a checkpoint to a bundle, verified against PyTorch."),
    "import": ("bundle.import_onnx", "Import an ONNX model that another tool exported."),
    "generate": ("decoder.generate", "Generate text from a prompt."),
    "chat": ("decoder.chat", "Chat with a model."),
    "score": ("decoder.score", "Measure how well a model predicts a text."),
    "evaluate": ("bundle.evaluate", "Measure a model's quality on a file with right answers."),
    "translate": ("encoder_decoder.translate", "Translate texts."),
    "summarize": ("encoder_decoder.summarize", "Summarize texts."),
    "rewrite": ("encoder_decoder.rewrite", "Run a text-to-text model: corrections, paraphrases, answers."),
    "read-image": ("encoder_decoder.read_image", "Read the text in images, or caption them."),
    "embed": ("encoder.embed", "Compute embeddings of texts or images."),
    "similarity": ("encoder.similarity", "Compare texts by meaning."),
    "search": ("encoder.search", "Find the texts nearest to a query."),
    "rerank": ("encoder.rerank", "Order documents by how well they answer a query."),
    "classify": ("encoder.classify", "Classify texts."),
    "tag": ("encoder.tag", "Find named entities and other spans in texts."),
    "fill-mask": ("encoder.fill_mask", "Predict masked words."),
    "next-sentence": ("encoder.next_sentence", "Estimate whether one text follows another."),
    "answer": ("encoder.answer", "Find the answer to a question in a text."),
    "classify-image": ("encoder.classify_image", "Classify images."),
    "classify-audio": ("encoder.classify_audio", "Classify recordings."),
    "transcribe": ("encoder_decoder.transcribe", "Transcribe speech in recordings."),
    "tokens": ("bundle.tokens", "Show how a model tokenizes a text."),
    "vectors": ("encoder.vectors", "Show the vector of each token in its context."),
    "inspect": ("bundle.inspect", "Show what a bundle contains."),
    "verify": ("bundle.verify", "Check a bundle's files, or its outputs against the checkpoint."),
    "sign": ("bundle.sign", "Sign a bundle with an Ed25519 key."),
    "pack": ("bundle.pack", "Pack bundles and what runs them for a device without a network."),
    "prepare": ("machine.prepare", "Prepare a bundle for this machine: a sooner start and less memory for more disk."),
    "batch": ("batch", "Run a model over files of any size, on one machine or a cluster."),
    "bench": ("machine.bench", "Measure how fast a bundle runs, and how much memory it takes."),
    "doctor": ("machine.doctor", "Show what this machine has, and which bundles fit it."),
}

# The commands of `triform batch`, in the same form.
BATCH_MODULES = {
    "embed": ("batch.embed", "Compute embeddings of texts."),
    "generate": ("batch.generate", "Answer prompts."),
    "translate": ("batch.translate", "Translate texts."),
    "summarize": ("batch.summarize", "Summarize texts."),
    "rewrite": ("batch.rewrite", "Run a text-to-text model."),
    "classify": ("batch.classify", "Classify texts."),
    "tag": ("batch.tag", "Find named entities and other spans in texts."),
    "transcribe": ("batch.transcribe", "Transcribe recordings."),
}

# Where triform.toml sets defaults of their options. What `doctor` says does not depend on files that it judges.
CONFIGURABLE = {(name,) for name in COMMAND_MODULES if name not in ("batch", "doctor")} | {
    ("batch", name) for name in BATCH_MODULES
}


def load_command(table: Table) -> ConfiguredCommand:
    """Import a command and make it.

    Args:
        table: ("generate",), or ("batch", "embed").
    """
    name = table[-1]
    place, help_line = (BATCH_MODULES if len(table) > 1 else COMMAND_MODULES)[name]
    module = import_module(f"triform.cli.commands.{place}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    # With a default bundle a command needs no arguments; `doctor` never does.
    bare_is_help = not default_bundle() and name != "doctor"
    single.command(
        name, cls=ConfiguredCommand, help=module.HELP, short_help=help_line, no_args_is_help=bare_is_help
    )(module.run)  # fmt: skip
    command = typer.main.get_command(single)
    assert isinstance(command, ConfiguredCommand)
    return command
