"""Speed of encoder-decoders next to CTranslate2 and transformers.

    python benchmarks/seq2seq.py prepare WORK    # environments, checkpoints and what the peers make of them, once
    python benchmarks/seq2seq.py speed WORK      # generated tokens a second, alternating

The checkpoints have the shapes of t5-small and of an opus-mt (Marian) model, and random weights: speed does not depend
on what is written, and every engine is made to write the same number of tokens. Sources are of 8 to 48 tokens. Every
engine runs in an environment of its own, with 2 threads.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS, THREADS = 5, 2
NEW_TOKENS = 48
ENGINES = ("triform", "ctranslate2", "transformers")
PACKAGES = {
    "triform": [str(HERE.parent)],
    "ctranslate2": ["torch==2.13.0", "transformers<5", "ctranslate2"],
    "transformers": ["torch==2.13.0", "transformers>=5.23,<6"],
}
# (beams, sources at once).
SETTINGS = ((1, 1), (1, 8), (4, 1), (4, 8))


def prepare(work: Path):
    """Make everything `speed` needs under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        if not (work / name).exists():
            subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
            for package in packages:
                subprocess.run([work / name / "bin" / "pip", "install", "--quiet", package], check=True)
    for kind in ("t5", "marian"):
        _checkpoint(kind, work / kind)
        command = [sys.executable, "-m", "triform", "export", work / kind, work / f"{kind}-triform", "--force"]
        subprocess.run(command, check=True)
        converter = work / "ctranslate2" / "bin" / "ct2-transformers-converter"
        command = [converter, "--model", work / kind, "--output_dir", work / f"{kind}-ctranslate2", "--force"]
        subprocess.run([*command, "--quantization", "int8"], check=True)
        (work / f"{kind}-transformers").unlink(missing_ok=True)
        (work / f"{kind}-transformers").symlink_to((work / kind).resolve())


def _checkpoint(kind: str, folder: Path):
    """Random weights in the shape of a model that people use, with a tokenizer of numbered words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    if kind == "t5":
        size, special = 32128, ["<pad>", "</s>", "<unk>"]
        model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0))
    else:
        size, special = 58101, ["</s>", "<unk>"]
        config = MarianConfig(
            vocab_size=size, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
            decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
            activation_function="swish", scale_embedding=True, pad_token_id=size - 1, eos_token_id=0,
            decoder_start_token_id=size - 1, forced_eos_token_id=None,
        )  # fmt: skip
        model = MarianMTModel(config)
    words = [*special, *(f"w{number}" for number in range(size - len(special) - (kind == "marian")))]
    words += ["<pad>"] if kind == "marian" else []
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = [("</s>", words.index("</s>"))]
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _start(work: Path, engine: str, kind: str):
    command = [work / engine / "bin" / "python", HERE / "seq2seq_engines.py", engine, work / f"{kind}-{engine}"]
    return subprocess.Popen(
        [*command, str(THREADS), str(NEW_TOKENS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _ask(process, request):
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def speed(work: Path):
    """Alternate between the engines; idle ones only wait for a line."""
    print("model    beams  batch  " + "  ".join(f"{name:>16}" for name in ENGINES) + "   ours / the others")
    for kind in ("t5", "marian"):
        running = {name: _start(work, name, kind) for name in ENGINES}
        for beams, batch in SETTINGS:
            rates = {name: [] for name in ENGINES}
            for round_number in range(ROUNDS + 1):
                for name in ENGINES:
                    rate = _ask(running[name], {"beams": beams, "batch": batch})
                    if round_number:
                        rates[name].append(rate)
                    time.sleep(0.2)
            found = {name: statistics.median(times) for name, times in rates.items()}
            ratios = "  ".join(f"{found['triform'] / found[name]:.2f}" for name in ENGINES[1:])
            row = "  ".join(f"{found[name]:10.0f} tok/s" for name in ENGINES)
            print(f"{kind:<8} {beams:5}  {batch:5}  {row}   {ratios}", flush=True)
        for process in running.values():
            process.stdin.close()
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("prepare", "speed"):
        raise SystemExit(__doc__)
    globals()[sys.argv[1]](Path(sys.argv[2]))
