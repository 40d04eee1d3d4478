"""The encoder-decoder form in a user's hands: a text or a picture in, text out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from triform.runtime.encoder_decoder.image_reading import pixels_of, read_pixels
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.generation.answers import Written
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions


class EncoderDecoder(SourceWriter):
    """An encoder-decoder bundle, loaded. Reusable, by several threads at once.

    Example:
        >>> model = triform.load_encoder_decoder("opus-mt-en-de-int8")  # doctest: +SKIP
        >>> model.generate("The house is small.").text  # doctest: +SKIP
    """

    def read_images(
        self,
        images: Iterable[str | Path | bytes],
        options: GenerationOptions | None = None,
        *,
        beams: Beams | None = None,
        batch: int = 8,
    ) -> list[Written]:
        """The best text about each picture: what is written in it, or what it shows.

        Args:
            images: files, or their contents.
            options: see `generate`.
            beams: see `generate`.
            batch: pictures to run at once.

        Raises:
            InputError: a picture cannot be read, or an option does not fit.
            UnsupportedError: the model reads something else, or Pillow is not installed.
        """
        pixels = (pixels_of(self, image) for image in images)
        return list(read_pixels(self, pixels, options, beams=beams, batch=batch))
