"""The software bill of materials of a bundle and its installation, in CycloneDX's JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import MANIFEST, FileInfo, GraphInfo, Manifest
from triform.runtime.extras import missing_extra
from triform.runtime.supply_chain.packages import Package, canonical_name

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

_TRIFORM = "triform"


def bill_of_materials(bundle: Bundle, packages: Sequence[Package]) -> str:
    """Describe a bundle and the packages that run it.

    Args:
        bundle: its files are listed with the hashes of its manifest, which `verify_files` compares with their contents.
        packages: of the installation.

    Returns:
        a JSON document in the format CycloneDX 1.6. Its subject is the bundle; its components are the model, its files,
        triform and `packages`.

    Raises:
        UnsupportedError: cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise missing_extra("a bill of materials needs cyclonedx-python-lib", "sbom") from None
    written = json.loads(JsonV1Dot6(_document(bundle, packages)).output_as_string())
    for component in written["components"]:
        if component["type"] == "machine-learning-model":
            # The library has no class for a model's card.
            component["modelCard"] = _model_card(bundle.manifest)
    return json.dumps(written, ensure_ascii=False, indent=2)


def _document(bundle: Bundle, packages: Sequence[Package]) -> Bom:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    manifest = bundle.manifest
    others = {package.name: _package(package) for package in packages if package.name != _TRIFORM}
    runtime = Component(
        name=_TRIFORM, type=ComponentType.LIBRARY, version=_triform_version(packages, manifest), bom_ref=_TRIFORM
    )
    model = _model(manifest)
    subject = Component(
        name=bundle.folder.resolve().name, type=ComponentType.DATA, bom_ref="bundle", properties=_form(manifest)
    )
    document = Bom(components=[model, runtime, *_files(bundle), *others.values()])
    document.metadata.component = subject
    document.register_dependency(subject, [model, runtime])
    needed = {package.name: package.requires for package in packages}
    document.register_dependency(runtime, [others[name] for name in needed.get(_TRIFORM, others) if name in others])
    for name, component in others.items():
        document.register_dependency(component, [others[other] for other in needed[name] if other in others])
    return document


def _triform_version(packages: Sequence[Package], manifest: Manifest) -> str:
    """That of the installation, or where it only lists the others, the one that made the bundle."""
    versions = [package.version for package in packages if package.name == _TRIFORM]
    return versions[0] if versions else manifest.triform_version


def _form(manifest: Manifest) -> list[Property]:
    from cyclonedx.model import Property

    return [
        Property(name="triform:form", value=manifest.form),
        Property(name="triform:schema_version", value=str(manifest.schema_version)),
        Property(name="triform:exported_with", value=manifest.triform_version),
    ]


def _model(manifest: Manifest) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType

    origin = manifest.export.origin
    properties = [
        Property(name=f"triform:graph:{graph}:{key}", value=value)
        for graph, info in manifest.graphs.items()
        for key, value in _quantization(info)
    ]
    properties.append(Property(name="triform:target", value="cpu,gpu" if manifest.gpu else manifest.target))
    if manifest.gpu is not None:
        properties.append(Property(name="triform:gpu:dtype", value=manifest.gpu.dtype))
    properties.append(Property(name="triform:parameters", value=str(manifest.parameters)))
    references = []
    if origin is not None and origin.repository is not None:
        references.append(
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(f"hf://{origin.repository}"))
        )
    return Component(
        name=manifest.model_name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        version=None if origin is None else origin.revision,
        licenses=_licenses(None if origin is None else origin.license),
        external_references=references,
        properties=properties,
    )


def _licenses(name: str | None) -> list[License]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [] if name is None else [LicenseFactory().make_from_string(name)]


def _quantization(info: GraphInfo) -> Iterator[tuple[str, str]]:
    quantization = info.quantization
    yield "quantization", quantization.scheme
    for key in ("bits", "block_size", "sensitive_block_size", "accuracy_level", "matrices"):
        value = getattr(quantization, key)
        if value is not None:
            yield key, str(value)


def _model_card(manifest: Manifest) -> dict[str, Any]:
    return {"modelParameters": {"task": manifest.task, "architectureFamily": manifest.model_type}}


def _files(bundle: Bundle) -> Iterator[Component]:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    content = (bundle.folder / MANIFEST).read_bytes()
    own = FileInfo(len(content), hashlib.sha256(content).hexdigest())
    for name, info in {MANIFEST: own, **bundle.manifest.files}.items():
        yield Component(
            name=name,
            type=ComponentType.FILE,
            bom_ref=f"file:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=info.sha256)],
            properties=[Property(name="triform:size", value=str(info.size))],
        )


def _package(package: Package) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("pypi", name=canonical_name(package.name), version=package.version)
    # A release has several files, one for each platform: their hashes are those of the release's distributions.
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in package.hashes]
    distribution = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION, url=XsUri(purl.to_string()), hashes=hashes
    )
    return Component(
        name=package.name,
        type=ComponentType.LIBRARY,
        version=package.version,
        bom_ref=purl.to_string(),
        purl=purl,
        external_references=[distribution] if hashes else [],
    )
