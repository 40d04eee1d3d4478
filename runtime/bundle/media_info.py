"""The manifest's records of how images and audio become a model's input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

# Pillow's names of its filters, in the order of its numbers for them.
Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESAMPLING: tuple[Resampling, ...] = get_args(Resampling)


# Seconds of the pieces that long recordings are cut into.
PIECE = 30.0


@dataclass(frozen=True)
class PatchesInfo:
    """How an image becomes patches: it keeps its shape, as nearly as whole patches allow.

    Attributes:
        size: of a patch's edges, in pixels.
        count: of patches in a row of the model's input; an image is made as large as it allows.
    """

    size: int
    count: int


@dataclass(frozen=True)
class ImageInfo:
    """How an image becomes `pixel_values`, in the order of the attributes. A step that is None is left out.

    Attributes:
        channels: of `pixel_values`; 3 is RGB.
        height: of `pixel_values`; 0 for patches.
        width: of `pixel_values`; 0 for patches.
        resize: [height, width], or [shortest edge], to resize to; the other edge is rounded down to whole pixels. Empty
            for patches.
        resample: Pillow's name of the filter that resizes: bilinear, bicubic, lanczos, nearest, box or hamming.
        crop: [height, width] to cut from the middle.
        rescale: factor for pixels from 0 to 255.
        mean: subtracted per channel, after rescaling.
        std: divided by per channel.
        resize_after_rescale: rescale before resizing, so that resized pixels are not rounded to 256 levels.
        channel_order: of `pixel_values`.
        patches: what is cut from the image at the end; None for a model that reads pixels.
    """

    channels: int
    height: int
    width: int
    resize: list[int]
    resample: Resampling
    crop: list[int] | None
    rescale: float | None
    mean: list[float] | None
    std: list[float] | None
    resize_after_rescale: bool = False
    channel_order: Literal["rgb", "bgr"] = "rgb"
    patches: PatchesInfo | None = None


@dataclass(frozen=True)
class MelInfo:
    """The spectrogram of the kind ``mel``: natural logarithms of the energies in mel bands, under a Hann window.

    Attributes:
        filters: ``slaney``, triangles of equal area on Slaney's scale, or ``htk``, triangles of height 1 on HTK's.
        lowest: lower end of the first band, in Hz.
        highest: upper end of the last band, in Hz.
        preemphasis: this part of each sample is subtracted from the next.
        centered: whether frame i is around sample ``i * hop_length``, with silence beyond both ends; otherwise it
            begins there.
        floor: what an energy is kept above.
        floor_added: whether the floor is added to each energy; otherwise smaller energies are raised to it.
    """

    filters: Literal["slaney", "htk"]
    lowest: float
    highest: float
    preemphasis: float
    centered: bool
    floor: float
    floor_added: bool


@dataclass(frozen=True)
class DeltasInfo:
    """The spectrogram of the kind ``mel_deltas``: log10 of the power in mel bands, and how it changes over time.

    Attributes:
        reach: frames before and after a frame that its change is computed from.
        range: of the logarithms; those further below an utterance's largest one are raised to that level.
    """

    reach: int
    range: float


@dataclass(frozen=True)
class AudioInfo:
    """How audio becomes a model's input.

    Attributes:
        kind: ``log_mel``, Whisper's spectrogram; ``fbank``, Kaldi's; ``mel_deltas``, one with its changes over time;
            ``mel``, any other; or ``waveform``, the samples themselves.
        sampling_rate: of the samples, in Hz.
        feature_size: mel bands; 1 for a waveform.
        padding_value: of samples (log_mel, waveform) or features (all others).
        chunk_length: seconds that the model reads at once; shorter audio is padded. None if it reads any length.
        win_length: samples in a frame; 0 for a waveform, like the next two.
        n_fft: points of a frame's Fourier transform.
        hop_length: samples from one frame to the next.
        normalize_means: whether each band of an utterance, or the waveform, is shifted to mean 0.
        normalize_vars: whether it is then scaled to variance 1. A waveform has both or neither.
        sample_variance: of fbank and mel, whether the sum of squares is divided by one less than the number of frames.
        variance_floor: added to each variance; 0 means 1e-7 for a waveform.
        deviation_floor: of fbank and mel, added to each standard deviation.
        stacked: of fbank, mel and mel_deltas, consecutive frames that become one; frames left over at the end are
            dropped, but completed by silence for mel_deltas.
        window: of fbank, that of a frame.
        scale: of fbank, multiplies samples: 32768 for those of 16 bits, as Kaldi reads them.
        length: of fbank, frames that the model reads at once: longer audio is cut, shorter padded with `padding_value`.
            None if it reads any length.
        mean: of fbank, subtracted from every number of the features and of their padding.
        deviation: of fbank, divides every number after that.
        mel: of the kind ``mel``.
        deltas: of the kind ``mel_deltas``.
        multiple: of waveform, what the number of samples in a batch must be a multiple of; the mask hides the padding.
        longest: of a model that reads any length, the most seconds that it reads at once, up to those of a piece;
            longer recordings are cut into pieces.
    """

    kind: Literal["log_mel", "fbank", "mel", "mel_deltas", "waveform"]
    sampling_rate: int
    feature_size: int
    padding_value: float
    chunk_length: int | None = None
    win_length: int = 0
    n_fft: int = 0
    hop_length: int = 0
    normalize_means: bool = False
    normalize_vars: bool = False
    sample_variance: bool = False
    variance_floor: float = 0.0
    deviation_floor: float = 0.0
    stacked: int = 1
    window: Literal["povey", "hann"] = "povey"
    scale: float = 32768.0
    length: int | None = None
    mean: float = 0.0
    deviation: float = 1.0
    mel: MelInfo | None = None
    deltas: DeltasInfo | None = None
    multiple: int = 1
    longest: float = PIECE

    @property
    def reads_less(self) -> bool:
        """Whether a model was found to read no piece of the usual length at once."""
        return not self.fixed and self.longest < PIECE

    @property
    def fixed(self) -> bool:
        """Whether the model reads a single length, which audio is padded or cut to."""
        return self.chunk_length is not None or self.length is not None

    @property
    def width(self) -> int:
        """Numbers in a row of the model's input; 1 for a waveform."""
        return self.feature_size * self.stacked * (1 if self.deltas is None else 2)

    @property
    def step(self) -> int:
        """Samples from one row of the model's input to the next; 1 for a waveform."""
        return self.hop_length * self.stacked if self.hop_length else 1


@dataclass(frozen=True)
class CtcInfo:
    """How the logits of a model trained with connectionist temporal classification become text.

    A row of ``length`` inputs (samples of a waveform, else rows of features) has ``(length + offset) // stride``
    frames of logits.

    Attributes:
        blank: the token that stands for no token, and separates equal ones.
        stride: inputs from one frame to the next.
        offset: see above.
    """

    blank: int
    stride: int
    offset: int


@dataclass(frozen=True)
class SpeechInfo:
    """The special tokens of a speech model with timestamps (Whisper).

    Attributes:
        timestamp_begin: the token of 0.00 seconds; each next one is 0.02 seconds later.
        no_timestamps: selects text without timestamps.
        languages: the token of each language, by its code; empty for an English-only model.
        transcribe: selects the spoken language; None for an English-only model.
        translate: selects English.
        no_speech: predicted where nobody speaks.
        previous: precedes the text of the previous window.
        max_initial_timestamp_index: the latest first timestamp of a window, in steps of 0.02 seconds.
        alignment_heads: [layer, head] of the cross-attentions that follow the audio.
        default_language: the code of the language that the model was made for; None to detect it.
        default_task: transcribe or translate, if the model was made for one; None means transcribe.
    """

    timestamp_begin: int
    no_timestamps: int
    languages: dict[str, int] = field(default_factory=dict)
    transcribe: int | None = None
    translate: int | None = None
    no_speech: int | None = None
    previous: int | None = None
    max_initial_timestamp_index: int | None = None
    alignment_heads: list[list[int]] = field(default_factory=list)
    default_language: str | None = None
    default_task: str | None = None
