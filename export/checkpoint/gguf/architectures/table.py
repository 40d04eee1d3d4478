"""A table of GGUF's architectures: for each, transformers' model type, and its names of keys and tensors.

An architecture that is not in the table is refused by name, because a config that is only partly understood would give
wrong results.
"""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.convolutions import CONVOLUTIONS
from triform.export.checkpoint.gguf.architectures.delta_rules import DELTA_RULES
from triform.export.checkpoint.gguf.architectures.dense import DENSE
from triform.export.checkpoint.gguf.architectures.encoder_decoders import ENCODER_DECODERS
from triform.export.checkpoint.gguf.architectures.encoders import ENCODERS
from triform.export.checkpoint.gguf.architectures.gemmas import GEMMAS
from triform.export.checkpoint.gguf.architectures.latent import LATENT
from triform.export.checkpoint.gguf.architectures.mixtures import MIXTURES
from triform.export.checkpoint.gguf.architectures.states import STATES

ARCHITECTURES = {
    **DENSE,
    **GEMMAS,
    **MIXTURES,
    **LATENT,
    **CONVOLUTIONS,
    **DELTA_RULES,
    **STATES,
    **ENCODERS,
    **ENCODER_DECODERS,
}
