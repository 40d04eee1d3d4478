"""Which graphs of a bundle a provider runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from triform import load_decoder
from triform.runtime import opening
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import ProviderError


@pytest.fixture
def described(int4_bundle, monkeypatch):
    """Has the bundle's manifest say something else."""

    def describe(**changes):
        bundle = open_bundle(int4_bundle)
        changed = replace(bundle, manifest=replace(bundle.manifest, **changes))
        monkeypatch.setattr(opening, "open_bundle", lambda path: changed)
        return int4_bundle

    return describe


def test_a_cache_on_a_device_is_refused_where_no_memory_of_it_can_be_used(described):
    folder = described(target="gpu")
    with pytest.raises(ProviderError) as caught:
        load_decoder(folder, provider="azure")
    assert str(caught.value) == (
        f"{folder} is made for GPUs, and only the provider cuda keeps its cache on one, not azure; export the model "
        "with `ExportOptions.target` cpu for it"
    )


@pytest.mark.filterwarnings("ignore:provider azure leaves")
def test_of_two_targets_another_provider_runs_the_graphs_for_the_cpu(described):
    folder = described(gpu=SimpleNamespace(graphs={}, dtype="float16"))
    assert load_decoder(folder, provider="azure").providers[0] == "AzureExecutionProvider"


def test_cuda_runs_the_graphs_for_gpus(described):
    """Which there are none of here, so that nothing is opened."""
    folder = described(gpu=SimpleNamespace(graphs={}, dtype="float16"))
    bundle, options = opening._open(folder, "once", {"provider": "CUDAExecutionProvider"})
    assert (bundle.manifest.target, bundle.manifest.graphs) == ("gpu", {})
    assert options == {"provider": "CUDAExecutionProvider"}


def test_auto_is_a_gpu_for_a_bundle_that_has_graphs_for_one(described, monkeypatch):
    monkeypatch.setattr(opening, "gpu_provider", lambda: "CUDAExecutionProvider")
    folder = described(gpu=SimpleNamespace(graphs={}, dtype="float16"))
    bundle, options = opening._open(folder, "once", {})
    assert (bundle.manifest.target, options["provider"]) == ("gpu", "CUDAExecutionProvider")
    assert opening._open(described(gpu=None), "once", {})[1] == {}


def test_a_bundle_for_gpus_alone_runs_on_the_cpu_with_a_note(described, monkeypatch):
    monkeypatch.setattr(opening, "gpu_provider", lambda: None)
    folder = described(target="gpu")
    with pytest.warns(UserWarning, match="is made for GPUs and none can be used here.*it runs on the CPU, slowly"):
        assert opening._open(folder, "once", {})[1] == {"provider": "cpu"}
