"""The class of a loaded encoder: each task is a method, which takes a list and returns a list.

Each calls a function of a similar name, which yields results lazily in bounded memory: `classification.classify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from triform.runtime.encoder.inputs import pairs
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.text.checks import checked

# Each method imports its task, because imports take most of the time of a short command.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triform.runtime.encoder.answering import Answer
    from triform.runtime.encoder.audio_classification import AudioInput
    from triform.runtime.encoder.fill_mask import Filling, Target
    from triform.runtime.encoder.tagging import Tag
    from triform.runtime.encoder.vectors.search_index import Hit, SearchIndex
    from triform.runtime.encoder.vectors.token_vectors import TokenVectors
    from triform.runtime.media.image import ImageInput
    from triform.runtime.text.pages import Text
    from triform.runtime.text.rows import Pair

    # Labels and their scores, the highest first.
    Labels = list[tuple[str, float]]


class Encoder(OpenEncoder):
    """A loaded encoder bundle. Reusable, by several threads at once.

    `manifest.task` is the bundle's task; a method for another task raises `UnsupportedError`. All methods raise
    `InputError` for a text that is not valid Unicode, an image or recording that cannot be read, a text where the model
    reads pages or a page where it reads texts, `UnsupportedError` if a package that reads it is missing, `BundleError`
    if the model's outputs are not finite, and `TriformError` if onnxruntime fails.

    Example:
        >>> encoder = triform.load_encoder("all-minilm-int8")  # doctest: +SKIP
        >>> encoder.embed(["A cat on a mat.", "A kitten on a rug."]).shape  # doctest: +SKIP
        (2, 384)
    """

    def embed(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
    ) -> NDArray[np.float32]:
        """Compute one vector for each text.

        Args:
            texts: texts, or pages for a model that reads boxes; too long ones are truncated, or refused if strict.
            prompt: put before each text.
            prompt_name: the same, by its name in the model; the model's default prompt when neither is given.
            dimensions: keep only the first numbers of each vector, for models trained for that (Matryoshka). If the
                model's vectors have length 1, the shortened ones do too.

        Returns:
            float32 (texts, dimensions).

        Raises:
            InputError: an option does not fit the model, or a text is too long for a strict model.
        """
        from triform.runtime.encoder.vectors.embedding import embedding_matrix

        return embedding_matrix(self, checked(texts), prompt=prompt, prompt_name=prompt_name, dimensions=dimensions)

    def embed_images(self, images: Sequence[ImageInput], *, dimensions: int | None = None) -> NDArray[np.float32]:
        """Compute one vector for each image.

        Args:
            images: paths of files, contents of files, or Pillow images.
            dimensions: see `embed`.

        Returns:
            float32 (images, dimensions).

        Raises:
            InputError: the model's vectors have fewer dimensions.
        """
        from triform.runtime.encoder.vectors.image_embedding import image_embedding_matrix

        return image_embedding_matrix(self, checked(images), dimensions=dimensions)

    def similarity(
        self,
        texts: Sequence[Text],
        others: Sequence[Text] | None = None,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> NDArray[np.float64]:
        """Compare each text with each of the others by the cosine of their vectors, from -1 to 1.

        Args:
            texts: see `embed`.
            others: texts to compare them with; themselves when None.
            prompt: see `embed`.
            prompt_name: see `embed`.

        Returns:
            float64 (texts, others).

        Raises:
            InputError: see `embed`.
        """
        from triform.runtime.encoder.vectors.embedding import similarities

        compared = None if others is None else checked(others)
        return similarities(self, checked(texts), compared, prompt=prompt, prompt_name=prompt_name)

    def search(
        self,
        queries: Sequence[str],
        documents: Iterable[str] | SearchIndex,
        *,
        top_k: int = 10,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> list[list[Hit]]:
        """Find the documents nearest to each query, by exact cosine.

        Args:
            queries: see `embed`.
            documents: texts, read once and in bounded memory; or an index that this model made.
            top_k: the most documents to return for each query.
            query_prompt: put before each query; by default the model's prompt called ``query``, if it has one.
            document_prompt: put before each document; by default the model's prompt called ``document``, ``passage`` or
                ``corpus``, if it has one. An index keeps the prompt that it was made with.

        Returns:
            for each query its documents and their cosines, the nearest first, equally near ones in their order.

        Raises:
            InputError: `top_k` is less than 1; or the index was made with another bundle or prompt, or is damaged.
        """
        from triform.runtime.encoder.vectors.search import search
        from triform.runtime.encoder.vectors.search_index import SearchIndex, as_documents

        searched = documents if isinstance(documents, SearchIndex) else as_documents(checked(documents))
        prompts = {"query_prompt": query_prompt, "document_prompt": document_prompt}
        return list(search(self, checked(queries), searched, top_k=top_k, **prompts))

    def build_search_index(self, folder: str | Path, texts: Iterable[str], *, prompt: str | None = None) -> SearchIndex:
        """Save texts and their vectors in a new folder, which appears whole or not at all, and open it for `search`.

        Args:
            folder: the folder to create.
            texts: at least one; read once, in bounded memory.
            prompt: put before each text; see `document_prompt` of `search`.

        Returns:
            the open index.

        Raises:
            InputError: the folder exists or cannot be created, there are no texts, or one cannot be used.
        """
        from triform.runtime.encoder.vectors.search_index import as_documents, build_index

        build_index(Path(folder), self, as_documents(checked(texts)), prompt=prompt)
        return self.open_search_index(folder)

    def open_search_index(self, folder: str | Path) -> SearchIndex:
        """Open a folder that `build_search_index` or ``triform search --index`` made. Its vectors stay on disk.

        Raises:
            InputError: the folder is not an index, is damaged, or was made with another bundle.
        """
        from triform.runtime.encoder.vectors.search_index import SearchIndex

        index = SearchIndex(Path(folder))
        index.check(self, None)
        return index

    def classify(self, texts: Sequence[Text | Pair]) -> list[Labels]:
        """Score every label of a text-classification model, as transformers' pipeline does.

        Args:
            texts: texts, or pairs of texts; pages for a model that reads boxes.

        Returns:
            for each text, (label, score) of every label, the highest score first: probabilities that sum to 1 if one
            label applies; each label's own probability if several may apply, or there is only one; the model's output
            itself for a regression.
        """
        from triform.runtime.encoder.classification import classify

        return list(classify(self, checked(texts)))

    def zero_shot(
        self, texts: Sequence[str], labels: Sequence[str], *, template: str | None = None, multi_label: bool = False
    ) -> list[Labels]:
        """Score labels of your own, with a model trained on natural language inference.

        Args:
            texts: the texts.
            labels: at least one.
            template: the hypothesis, with {} for the label; "This example is {}." when None.
            multi_label: whether several labels may fit a text; each then has its own probability.

        Returns:
            for each text, (label, score) of every label, the highest score first. The scores sum to 1 unless
            `multi_label`; a single label has its own probability either way.

        Raises:
            InputError: there is no label, or the template has no {}.
        """
        from triform.runtime.encoder.zero_shot import HYPOTHESIS_TEMPLATE, zero_shot

        wording = HYPOTHESIS_TEMPLATE if template is None else template
        return list(zero_shot(self, checked(texts), checked(labels), template=wording, multi_label=multi_label))

    def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Score how well each document answers a query, with a text-classification model of one label.

        Args:
            query: the query.
            documents: texts.

        Returns:
            a score for each document, in order; higher is better. It is that of sentence-transformers' CrossEncoder: a
            probability by the sigmoid, unless the model's config names another function.
        """
        from triform.runtime.encoder.reranking import rerank

        return list(rerank(self, query, checked(documents)))

    def tag(self, texts: Sequence[Text], *, aggregation: str = "simple", stride: int | None = None) -> list[list[Tag]]:
        """Find names and other spans in texts of any length, with a token-classification model.

        Args:
            texts: texts, or pages for a model that reads boxes; longer ones than the model can read at once are read in
                overlapping windows.
            aggregation: what becomes a span. ``none``: each token. ``simple``: neighboring tokens of the same label.
                The others first give all tokens of a word the same label: ``first`` that of its first token, ``max``
                that of the most probable token, ``average`` the label with the highest mean probability.
            stride: tokens that neighboring windows share; a quarter of a window when None.

        Returns:
            for each text its spans, in order.

        Raises:
            InputError: there is no such aggregation, or the stride does not fit.
        """
        from triform.runtime.encoder.tagging import tag

        return list(tag(self, checked(texts), aggregation=aggregation, stride=stride))

    def answer(
        self,
        questions: Sequence[Pair],
        *,
        top_k: int = 1,
        max_answer_length: int = 15,
        stride: int | None = None,
        no_answer: bool = False,
    ) -> list[list[Answer]]:
        """Find the answers to questions in texts of any length, with a question-answering model.

        Args:
            questions: (question, text) each; or (question, page) for a model that reads boxes.
            top_k: the most answers to each question.
            max_answer_length: the most tokens of an answer.
            stride: tokens of the text that neighboring windows share; when None, 128 or half of the window without the
                question, whichever is less.
            no_answer: whether "there is no answer" counts as an answer, an empty text.

        Returns:
            for each question its answers, the best first.

        Raises:
            InputError: an option is out of range, a question or text is empty, or a question leaves no room for a text.
        """
        from triform.runtime.encoder.answering import answer

        answers = answer(
            self,
            pairs(questions),
            top_k=top_k,
            max_answer_length=max_answer_length,
            stride=stride,
            no_answer=no_answer,
        )
        return list(answers)

    def fill_mask(
        self, texts: Sequence[Text], *, top_k: int = 5, targets: Sequence[int] | None = None
    ) -> list[list[list[Filling]]]:
        """Find the most likely tokens for every mask of each text, with a fill-mask model.

        Args:
            texts: texts, or pages for a model that reads boxes; each with at least one mask, written as the model's
                own, [MASK] or <mask>.
            top_k: fillings for each mask.
            targets: ids of the tokens to choose from, see `find_targets`; all tokens when None.

        Returns:
            for each text, for each of its masks, `top_k` fillings, the most likely first.

        Raises:
            UnsupportedError: the tokenizer has no mask.
            InputError: a text has no mask among the tokens that the model can read.
        """
        from triform.runtime.encoder.fill_mask import fill_mask

        return list(fill_mask(self, checked(texts), top_k=top_k, targets=targets))

    def find_targets(self, words: Sequence[str]) -> list[Target]:
        """Look up words for `fill_mask`: ``targets=[target.token for target in encoder.find_targets(words)]``.

        Returns:
            for each word its token. If a word has several tokens, `Target.whole` is False and the token is its first,
            as in transformers.

        Raises:
            InputError: a word has no token at all.
        """
        from triform.runtime.encoder.fill_mask import find_targets

        return find_targets(self, checked(words))

    def next_sentence(self, texts: Sequence[Pair]) -> list[float]:
        """Compute the probability that the second text of each pair follows the first: from 0 to 1.

        Needs a next-sentence-prediction model.
        """
        from triform.runtime.encoder.classification import next_sentence

        return list(next_sentence(self, pairs(texts)))

    def token_vectors(self, texts: Sequence[Text], *, layer: int | None = None) -> list[TokenVectors]:
        """Compute the vector of each token of each text in its context, truncated to what the model can read.

        Args:
            texts: the texts, or pages for a model that reads boxes.
            layer: 0 for the embeddings, 1 for the first layer, and so on; the last when None. Layers before the last
                need a bundle exported with `ExportOptions.hidden_states`.

        Returns:
            for each text its tokens, with vectors float32 (tokens, hidden size).

        Raises:
            UnsupportedError: the bundle does not output these vectors.
            InputError: there is no such layer, or a text has no tokens.
        """
        from triform.runtime.encoder.vectors.token_vectors import token_vectors

        return [token_vectors(self, text, layer) for text in checked(texts)]

    def classify_images(self, images: Sequence[ImageInput]) -> list[Labels]:
        """Score every label of an image-classification model, as transformers' pipeline does.

        Args:
            images: see `embed_images`.

        Returns:
            for each image, (label, score) of every label, the highest score first; see `classify`.
        """
        from triform.runtime.encoder.image_classification import classify_images

        return list(classify_images(self, checked(images)))

    def classify_audio(self, recordings: Sequence[AudioInput]) -> list[Labels]:
        """As `classify_images`, for recordings: paths of audio files, their contents, `Audio`, or samples.

        Samples are float32 (samples), one channel, at the model's rate. Those too short for the model are refused.
        """
        from triform.runtime.encoder.audio_classification import classify_audio

        return list(classify_audio(self, checked(recordings)))

    def match_labels(
        self, images: Sequence[ImageInput], labels: Sequence[str], *, template: str | None = None
    ) -> list[Labels]:
        """Score how well labels of your own describe each image, with a zero-shot-image-classification model (CLIP).

        Args:
            images: see `embed_images`.
            labels: at least one, in any words.
            template: a sentence with {} for the label; "a photo of {}." when None.

        Returns:
            for each image, (label, score), the highest score first: probabilities that sum to 1 or each label's own,
            depending on how the model was trained.

        Raises:
            InputError: there are no labels, one is empty, or the template has no {}.
        """
        from triform.runtime.encoder.image_classification import LABEL_TEMPLATE, match_labels

        wording = LABEL_TEMPLATE if template is None else template
        return list(match_labels(self, checked(images), checked(labels), template=wording))
