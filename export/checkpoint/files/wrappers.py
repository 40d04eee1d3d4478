"""Names of tensors without what tools of training put into them: the wrappers that a model was in when it was saved."""

from __future__ import annotations

import re
from collections.abc import Iterable

# torch.compile, FSDP with and without recomputed activations, and Lightning's fabric.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Data parallelism, around all of a model.
_PARALLEL = "module."


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """By each name, the same without wrappers; names that would then be the same are left as they are."""
    plain = {name: _WRAPPERS.sub("", name) for name in names}
    if plain and all(name.startswith(_PARALLEL) for name in plain.values()):
        plain = {name: short.removeprefix(_PARALLEL) for name, short in plain.items()}
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in plain}
