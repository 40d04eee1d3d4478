"""Makes the config of any type tiny, by what the names of its fields say."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from tests.coverage.dimensions import HEAD_DIM, HEADS, INNER, KV_HEADS, LAYERS, SMALL, VOCABULARIES
from tests.coverage.type_settings import settings_of

VOCAB = 400
_KEPT = ("model_type", "transformers_version", "architectures", "dtype")
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


def small_settings(config: PretrainedConfig, name: str | None = None, layers: int | None = None) -> dict[str, Any]:
    """Keyword arguments that make a config of the same kind tiny.

    Args:
        config: a default one.
        name: the type or variant, as in `TYPE_SETTINGS`; the config's own type when None.
        layers: how many of them, or fewer where the config lists fewer; as few as have one of every kind when None.
    """
    default, own = config.to_dict(), settings_of(name or config.model_type)
    count, kept = _kept_layers(default) if layers is None else _first_layers(default, layers)
    if "num_hidden_layers" in own:
        count = own["num_hidden_layers"]
        kept = list(range(count))
    settings: dict[str, Any] = {}
    for key, value in default.items():
        part = _part(config, key)
        if key in _KEPT:
            continue
        if part is not None:
            settings[key] = {**small_settings(part, layers=layers), "model_type": part.model_type}
        elif key in LAYERS and isinstance(value, int):
            settings[key] = count
        elif isinstance(value, list) and _layer_count(default) == len(value) > 3:
            settings[key] = [_of_layer(key, value[index]) for index in kept]
        else:
            settings |= _small_value(key, value, default)
    return {**settings, **own}


def _small_value(key: str, value: Any, default: dict[str, Any]) -> dict[str, Any]:
    """What a field becomes, as a dictionary of one item; empty if it stays as it is."""
    if key == "vocab_size":
        return {key: VOCAB}
    if isinstance(value, bool) or value is None:
        return {}
    if key in VOCABULARIES:
        return {key: VOCAB}
    if key.endswith(("token_id", "token_index")):
        return {key: _token(key, value)}
    if key == "num_key_value_heads" and isinstance(value, int):
        return {key: KV_HEADS if value != default.get("num_attention_heads") else HEADS}
    if key == "head_dim" and "qk_rope_head_dim" in default:
        return {}
    if key == "rope_parameters" and isinstance(value, dict):
        return {key: _small_rope(value)}
    return {key: SMALL[key]} if key in SMALL and isinstance(value, int) else {}


def _part(config: PretrainedConfig, key: str) -> PretrainedConfig | None:
    """A config within a config."""
    try:
        part = getattr(config, key, None)
    except Exception:  # what differs between layers has no value of its own, and raises an error of its own
        return None
    return part if isinstance(part, PretrainedConfig) else None


def _token(key: str, value: Any) -> Any:
    if key in TOKENS:
        return TOKENS[key]
    if isinstance(value, list):
        return [30 + index for index, _ in enumerate(value)]
    # Any other token, the same each time and rarely the same for two names.
    return 7 + sum(map(ord, key)) % 20


def _layer_count(default: dict[str, Any]) -> int:
    return next((default[key] for key in LAYERS if isinstance(default.get(key), int)), -1)


def _lists_by_layer(default: dict[str, Any]) -> list[list[Any]]:
    count = _layer_count(default)
    return [value for value in default.values() if isinstance(value, list) and len(value) == count and count > 3]


def _first_layers(default: dict[str, Any], layers: int) -> tuple[int, list[int]]:
    count = min(layers, _layer_count(default)) if _lists_by_layer(default) else layers
    return count, list(range(count))


def _kept_layers(default: dict[str, Any]) -> tuple[int, list[int]]:
    """How few layers have one of every kind, and which: the first ones, or if those are many, one of each kind."""
    lists = _lists_by_layer(default)
    if not lists:
        return 2, [0, 1]
    kinds = [tuple(map(str, kind)) for kind in zip(*lists, strict=True)]
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    if max(first) < 6:
        size = max(2, max(first) + 1)
        return size, list(range(size))
    kept = sorted(first)[:6]
    return len(kept), kept


def _of_layer(key: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"num_attention_heads_per_layer": HEADS, "intermediate_size": INNER}.get(key, value)
    return value


def _small_rope(value: dict[str, Any]) -> dict[str, Any]:
    small = {}
    for key, item in value.items():
        if isinstance(item, dict):
            item = _small_rope(item)
        elif key == "original_max_position_embeddings":
            item = 64
        elif key == "mrope_section":
            half = int(HEAD_DIM * value.get("partial_rotary_factor", 1.0)) // 2
            item = [half - 2 * (half // 3), half // 3, half // 3]
        small[key] = item
    return small
