"""Contrastive search against a slow one that runs PyTorch on the whole text for every candidate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.checkpoints.wandering import wandering_folder
from triform.cli.main import run
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.recheck.against import verify_against
from triform.export.runners import DecoderRunner
from triform.export.verify.decoder import reference_states, verify_states
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import ExportError, InputError, UnsupportedError
from triform.runtime.generation.contrastive import likeliest
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.graphs.decoding import branches as hidden_step
from triform.runtime.graphs.decoding.branches import HiddenStep
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder, hidden_size_of
from triform.runtime.text.tokenizer import bundle_tokenizer

PROMPT = "The ferry left the harbor before the fog had lifted."
HIDDEN_SIZE = 96


class Subject:
    """A checkpoint that does not repeat itself, and bundles of it that give hidden states."""

    def __init__(self, folder, family):
        self.checkpoint, self._folder = wandering_folder(folder / "checkpoint", family), folder
        self.model = AutoModelForCausalLM.from_pretrained(self.checkpoint).eval()
        self.bundle = self.exported("none")
        self.decoder = Decoder(self.bundle)
        self.ids = bundle_tokenizer(self.bundle).encode(PROMPT).ids

    def exported(self, scheme):
        export(str(self.checkpoint), self._folder / scheme, ExportOptions(quantize=scheme, hidden_states=True))
        return open_bundle(self._folder / scheme)

    def states(self, rows):
        """PyTorch's last hidden states, (rows, tokens, hidden_size)."""
        with torch.no_grad():
            return self.model(torch.tensor(rows), output_hidden_states=True).hidden_states[-1]

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[:, -1]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Subject(tmp_path_factory.mktemp("contrastive-llama"), "llama")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Subject(tmp_path_factory.mktemp("contrastive-gpt2"), "gpt2")


@pytest.fixture(params=["llama", "gpt2"])
def subject(request):
    return request.getfixturevalue(request.param)


def hidden_step_of(bundle, rows=1):
    path, _ = bundle.graph("decoder")
    session = open_session(path)
    return HiddenStep(session, bundle.manifest, check_decoder(session, bundle.manifest, path), rows)


def slow_search(subject, alpha, top_k, count, processors=()):
    """The formula of the paper, on the whole text each time."""
    ids = list(subject.ids)
    for _ in range(count):
        logits = subject.logits(ids)
        for one in processors:
            logits = one(torch.tensor([ids]), logits)
        probabilities, tokens = logits.softmax(-1)[0].topk(top_k)
        scores = []
        for probability, token in zip(probabilities, tokens.tolist(), strict=True):
            states = subject.states([[*ids, token]])[0]
            resemblance = torch.nn.functional.cosine_similarity(states[-1:], states[:-1]).max()
            scores.append(float((1 - alpha) * probability - alpha * resemblance))
        ids.append(int(tokens[int(np.argmax(scores))]))
        if ids[-1] == 2:
            break
    return ids[len(subject.ids) :]


@pytest.mark.parametrize(("alpha", "top_k"), [(0.6, 4), (0.2, 5), (0.9, 2), (0.01, 3)])
def test_tokens_are_those_of_a_slow_search(subject, alpha, top_k):
    options = GenerationOptions(penalty_alpha=alpha, top_k=top_k, max_new_tokens=24)
    found = subject.decoder.generate(PROMPT, options, raw=True)
    assert list(found.token_ids) == slow_search(subject, alpha, top_k, 24)
    assert found.text == bundle_tokenizer(subject.bundle).decode(list(found.token_ids))


def test_a_model_that_calls_its_decoder_past_what_holds_it(tmp_path):
    opt = Subject(tmp_path, "opt")
    found = opt.decoder.generate(PROMPT, GenerationOptions(penalty_alpha=0.5, top_k=3, max_new_tokens=12), raw=True)
    assert list(found.token_ids) == slow_search(opt, 0.5, 3, 12)


def test_it_is_not_the_likeliest_token_always(llama):
    greedy = llama.decoder.generate(PROMPT, GenerationOptions(temperature=0, max_new_tokens=24), raw=True).token_ids
    options = GenerationOptions(penalty_alpha=0.6, top_k=4, max_new_tokens=24)
    assert llama.decoder.generate(PROMPT, options, raw=True).token_ids != greedy


def test_processors_come_before_the_candidates(subject):
    likely = [int(subject.logits(subject.ids).argmax())]
    options = GenerationOptions(
        penalty_alpha=0.4,
        top_k=3,
        max_new_tokens=20,
        penalties=Penalties(repetition_penalty=1.4),
        constraints=Constraints(suppress_tokens=tuple(likely)),
    )
    processors = [
        transformers.RepetitionPenaltyLogitsProcessor(1.4),
        transformers.SuppressTokensLogitsProcessor(likely),
    ]
    found = subject.decoder.generate(PROMPT, options, raw=True)
    assert list(found.token_ids) == slow_search(subject, 0.4, 3, 20, processors)
    assert likely[0] not in found.token_ids


def test_fewer_candidates_than_asked_for(llama):
    allowed = {7, 9, 11}
    banned = tuple(token for token in range(llama.bundle.manifest.vocab_size) if token not in allowed)
    options = GenerationOptions(
        penalty_alpha=0.5, top_k=6, max_new_tokens=8, constraints=Constraints(suppress_tokens=banned)
    )
    processors = [transformers.SuppressTokensLogitsProcessor(list(banned))]
    expected = slow_search(llama, 0.5, 3, 8, processors)
    assert list(llama.decoder.generate(PROMPT, options, raw=True).token_ids) == expected


def test_log_probabilities_are_the_models(llama):
    options = GenerationOptions(penalty_alpha=0.6, top_k=4, max_new_tokens=6, logprobs=0)
    found = llama.decoder.generate(PROMPT, options, raw=True)
    ids = [*llama.ids, *found.token_ids]
    with torch.no_grad():
        table = llama.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(table[place - 1, ids[place]]) for place in range(len(llama.ids), len(ids))]
    assert [one.logprob for one in found.logprobs] == pytest.approx(expected, abs=1e-4)


def test_to_the_end_of_the_context(llama):
    # More than the room made at first, and the last place that the model has.
    never_end = Constraints(suppress_tokens=(2,))
    options = GenerationOptions(penalty_alpha=0.6, top_k=3, constraints=never_end)
    found = llama.decoder.generate(PROMPT, options, raw=True)
    assert len(llama.ids) + len(found.token_ids) == llama.bundle.manifest.max_length
    assert found.finish_reason == "length"


def test_stop_strings_end_it(llama):
    options = GenerationOptions(penalty_alpha=0.6, top_k=4, max_new_tokens=24)
    whole = llama.decoder.generate(PROMPT, options, raw=True).text
    stopped = llama.decoder.generate(PROMPT, dataclasses.replace(options, stop=(whole[9:12],)), raw=True)
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.find(whole[9:12])], "stop")


def test_from_the_command_line(llama, capsys):
    arguments = ["generate", str(llama.bundle.folder), PROMPT, "--raw", "--max-new-tokens", "9", "--top-k", "4"]
    assert run([*arguments, "--penalty-alpha", "0.6"]) == 0
    assert capsys.readouterr().out == bundle_tokenizer(llama.bundle).decode(slow_search(llama, 0.6, 4, 9)) + "\n"
    assert run([*arguments, "--penalty-alpha", "0.6", "--prompt-cache", "x"]) == 2
    assert capsys.readouterr().err == "error: --prompt-cache does not go with --penalty-alpha; leave it out\n"
    assert run([*arguments, "--penalty-alpha", "0.6", "--num-beams", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hidden_states_are_pytorchs(subject, monkeypatch):
    # In several runs, across the borders at which the cache grows, from any row to more and fewer.
    monkeypatch.setattr(hidden_step, "CHUNK", 17)
    generator = np.random.default_rng(3)
    ids = generator.integers(3, 300, 61).tolist()
    step = hidden_step_of(subject.bundle)
    logits, states = step.prefill(ids)
    np.testing.assert_allclose(states, subject.states([ids])[0], atol=2e-4)
    np.testing.assert_allclose(logits, subject.logits(ids)[0], atol=2e-4)
    row = 0
    for count in (3, 5, 1, 2, 4, 3):
        tokens = generator.integers(3, 300, count)
        logits, states = step.branch(tokens, row)
        rows = [[*ids, token] for token in tokens.tolist()]
        np.testing.assert_allclose(states, subject.states(rows)[:, -1], atol=2e-4)
        np.testing.assert_allclose(logits, torch.cat([subject.logits(one) for one in rows]), atol=2e-4)
        row = count - 1
        ids = rows[row]


@pytest.mark.parametrize(("scheme", "least"), [("int8", 0.999), ("int4", 0.97)])
def test_quantized_graphs_give_hidden_states(llama, scheme, least):
    bundle = llama.exported(scheme)
    _, states = hidden_step_of(bundle).prefill(llama.ids)
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(states), llama.states([llama.ids])[0])
    assert float(cosines.mean()) > least
    found = Decoder(bundle).generate(PROMPT, GenerationOptions(penalty_alpha=0.6, top_k=4, max_new_tokens=9), raw=True)
    assert len(found.token_ids) == 9 or found.finish_reason == "stop"


def test_the_manifest_says_so(llama, wandering_llama):
    outputs = {one.name: one for one in llama.bundle.manifest.graphs["decoder"].outputs}
    states = outputs["last_hidden_state"]
    assert (states.dtype, states.shape) == ("float32", ["batch", "sequence", HIDDEN_SIZE])
    assert hidden_size_of(llama.bundle.manifest) == HIDDEN_SIZE
    # Nothing else differs from a bundle without them, and that one knows nothing of them.
    plain = wandering_llama.manifest.graphs["decoder"]
    names = [one.name for one in plain.outputs]
    assert list(outputs) == [names[0], "last_hidden_state", *names[1:]]
    assert llama.bundle.manifest.graphs["decoder"].operators == plain.operators
    assert hidden_size_of(wandering_llama.manifest) is None


def test_what_is_not_pytorchs_is_found_out(llama):
    assert verify_against(llama.bundle, str(llama.checkpoint)).prefill < 1e-3
    path, _ = llama.bundle.graph("decoder")
    runner = DecoderRunner(path, llama.bundle.manifest.cache, 1)
    ids = llama.ids * 2
    expected = reference_states(llama.model, ids)
    verify_states(runner, expected, ids)
    expected[7, 3] += 1e-3 * np.abs(expected).max()
    with pytest.raises(ExportError, match="hidden states differ by"):
        verify_states(runner, expected, ids)


def test_a_bundle_without_hidden_states_refuses(wandering_llama):
    options = GenerationOptions(penalty_alpha=0.6, top_k=4)
    with pytest.raises(UnsupportedError, match=r"export the model with `ExportOptions\.hidden_states`") as caught:
        Decoder(open_bundle(wandering_llama.path.parent)).stream(PROMPT, options, raw=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty_alpha": 0}, "`penalty_alpha` must be above 0, not 0"),
        ({"penalty_alpha": 1}, "`penalty_alpha` must be below 1, not 1"),
        ({"penalty_alpha": "x"}, "`penalty_alpha` must be a finite number, not 'x'"),
        ({"top_k": None}, "`penalty_alpha` chooses among several tokens; give `top_k` of at least 2 too"),
        ({"top_k": 1}, "`penalty_alpha` chooses among several tokens; give `top_k` of at least 2 too"),
        ({"temperature": 0.5}, "`penalty_alpha` turns sampling off, but `temperature` needs it"),
        ({"top_p": 0.5}, "`penalty_alpha` turns sampling off, but `top_p` needs it"),
        ({"truncation": Truncation(min_p=0.5)}, "`penalty_alpha` turns sampling off, but `min_p` needs it"),
        ({"speculate": "lookup"}, "`speculate` lookup does not go with `penalty_alpha`; leave one out"),
        ({"on_overflow": "shift"}, "`on_overflow` shift does not go with `penalty_alpha`; leave one out"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(InputError) as caught:
        GenerationOptions(**{"penalty_alpha": 0.6, "top_k": 4, **changes})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_it_is_for_one_answer_at_a_time(llama):
    options = GenerationOptions(penalty_alpha=0.6, top_k=4)
    for beams in (Beams(num_beams=2), Beams()):
        with pytest.raises(InputError, match="`penalty_alpha` is for one answer at a time"):
            list(llama.decoder.generate_all([PROMPT], options, beams=beams))


def test_the_likeliest_tokens():
    logits = np.log(np.array([1, 4, 2, 4, 0.5], np.float32))
    tokens, probabilities = likeliest(logits, 3)
    assert tokens.tolist() == [1, 3, 2]
    assert probabilities == pytest.approx(np.array([4, 4, 2]) / 11.5)
    tokens, _ = likeliest(np.array([-np.inf, 0, -np.inf], np.float32), 3)
    assert tokens.tolist() == [1]
    with pytest.raises(InputError, match="every token is banned"):
        likeliest(np.full(3, -np.inf, np.float32), 2)


@pytest.mark.parametrize("count", [1, 2, 7, 49, 50, 60])
def test_the_likeliest_of_many_tokens(count):
    logits = np.random.default_rng(count).permutation(50).astype(np.float32)
    tokens, _ = likeliest(logits, count)
    assert logits[tokens].tolist() == list(range(49, -1, -1))[:count]
