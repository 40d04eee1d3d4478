"""The same names for settings that configs name differently."""

from __future__ import annotations

from typing import Any

from optimum.utils import NormalizedConfigManager


def normal_config(config: Any) -> dict[str, Any]:
    """Layer count and sizes under one name, whatever the architecture calls them."""
    try:
        normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        normal = config
    names = {"num_layers": "num_hidden_layers", "hidden_size": "hidden_size", "vocab_size": "vocab_size"}
    values = {}
    for name, plain in names.items():
        value = getattr(normal, name, None) or getattr(config, plain, None)
        if value is not None:
            values[name] = value
    return values
