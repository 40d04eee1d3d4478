"""The encoder form in a user's hands: every task of an encoder is a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triform.runtime.encoder.opened import OpenEncoder

if TYPE_CHECKING:
    from triform.runtime.encoder.vectors.image_embedding import Picture


class Encoder(OpenEncoder):
    """An encoder bundle, loaded."""

    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
    ) -> NDArray[np.float32]:
        """One vector a text, all at once: float32 (len(texts), dimensions). See `vectors.embedding.embed`."""
        from triform.runtime.encoder.vectors.embedding import embed, embedding_info

        width = dimensions or embedding_info(self).dimension
        vectors = embed(self, texts, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions)
        return np.array(list(vectors), np.float32).reshape(len(texts), width)

    def embed_images(self, pictures: Sequence[Picture], *, dimensions: int | None = None) -> NDArray[np.float32]:
        """One vector a picture, all at once: float32 (len(pictures), dimensions).

        See `vectors.image_embedding.embed_images`.
        """
        from triform.runtime.encoder.vectors.image_embedding import embed_images, image_embedding_info

        width = dimensions or image_embedding_info(self).dimension
        vectors = embed_images(self, pictures, dimensions=dimensions)
        return np.array(list(vectors), np.float32).reshape(len(pictures), width)
