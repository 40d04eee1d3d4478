"""The class of a loaded encoder-decoder, which generates text from a text or an image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from triform.runtime.encoder_decoder.image_reading import image_info_of, read_pixels
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.generation.answers import Completion
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.media.image import image_inputs


class EncoderDecoder(SourceWriter):
    """A loaded encoder-decoder bundle. Reusable, by several threads at once.

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
    ) -> list[Completion]:
        """Read the text in each image, or describe it, depending on the model.

        Args:
            images: paths of files, or their contents.
            options: see `generate`.
            beams: see `generate`.
            batch: images to run at once.

        Returns:
            the best text for each image, in order.

        Raises:
            InputError: an image cannot be read, or the model does not support an option.
            UnsupportedError: the model does not read images, or Pillow is not installed.
        """
        info = image_info_of(self)
        pixels = (image_inputs(image, info)["pixel_values"] for image in images)
        return list(read_pixels(self, pixels, options, beams=beams, batch=batch))
