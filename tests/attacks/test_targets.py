"""Every kind of file, damaged in any way: read, or refused in one line. `make fuzz` does the same for longer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.attacks.targets import TARGETS, attempt

# A dry run of an export takes longer than reading a file.
EXAMPLES = dict.fromkeys(TARGETS, 150) | dict.fromkeys(("config", "config_bytes", "gguf"), 40)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_damage(name, tmp_path):
    refused = []

    @settings(
        max_examples=EXAMPLES[name],
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=96))
    def damage(data):
        refused.append(attempt(TARGETS[name], data, tmp_path) is not None)

    damage()
    # Files that are all refused, or none of them, would test nothing behind.
    assert any(refused)
