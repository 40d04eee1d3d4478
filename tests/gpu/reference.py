"""Writes what float32 answers, for the checks on a GPU machine to compare with.

python tests/gpu/reference.py answers CHECKPOINT REFERENCE.json   # greedy tokens, and how clear each choice is
python tests/gpu/reference.py vectors CHECKPOINT REFERENCE.json   # mean-pooled vectors of length 1, of 64 texts
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from triform.export.samples import texts

PROMPTS = (
    "Why is the sky blue? Answer in detail.",
    "Write a short story about a fox and a river.",
    "List ten uses of a paperclip and explain each.",
    "What is the capital of France, and what is it known for?",
    "Explain how a bicycle stays upright.",
)
NEW_TOKENS, TEXTS, SHORTEST = 200, 64, 40


def answers(checkpoint: Path) -> list[dict[str, Any]]:
    """Greedy answers by transformers."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer, cases = AutoTokenizer.from_pretrained(checkpoint), []
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        best, second = torch.stack(made.logits)[:, 0].topk(2, -1).values.T
        count = inputs["input_ids"].shape[1]
        tokens = made.sequences[0, count:].tolist()
        cases.append({"prompt": prompt, "prompt_tokens": count, "tokens": tokens, "margin": (best - second).tolist()})
    return cases


def vectors(checkpoint: Path) -> dict[str, Any]:
    """Texts and their vectors by transformers."""
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lines = [line.strip() for line in texts.read_text("evaluation").splitlines()]
    chosen = [line for line in lines if len(line) > SHORTEST][:TEXTS]
    inputs = tokenizer(chosen, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    return {"texts": chosen, "vectors": pooled.tolist()}


if __name__ == "__main__":
    made = {"answers": answers, "vectors": vectors}[sys.argv[1]](Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(made), encoding="utf-8")
