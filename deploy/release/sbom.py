"""`python -m deploy.release.sbom`: a CycloneDX document for each image, and one for the chart, which names the images.

Written from what is in an image, not from what was meant to go into it. Two runs over one image write the same bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from trimtab_local import images as image_builder

from .inventory import Package, installed, release

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/trimtab/Chart.yaml"
PRODUCT = ("operator", "prepare", "trainer", "console")
NAMESPACE = uuid.UUID("6f6b7c1e-3a0e-5f0a-9b6e-6d1d3f7f5f11")
"""Of the serial numbers, which are made of what the document is about."""


@dataclass(frozen=True)
class Image:
    """An image, by the digest of its manifest."""

    name: str
    reference: str
    digest: str

    @property
    def component(self) -> Component:
        """The image itself, as what a document is about or what a chart needs."""
        repository, _, tag = self.reference.rpartition(":")
        purl = PackageURL(
            type="oci",
            name=repository.rpartition("/")[2],
            version=self.digest,
            qualifiers={"repository_url": repository, "tag": tag},
        )
        return Component(
            type=ComponentType.CONTAINER,
            name=f"trimtab/{self.name}",
            version=tag,
            purl=purl,
            bom_ref=str(purl),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=self.digest.removeprefix("sha256:"))],
        )


def of_image(image: Image, packages: Sequence[Package], distribution: str) -> Bom:
    """Return the document of an image."""
    subject = image.component
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, image.digest))
    bom.metadata.component = subject
    components = {(each.source, each.name): component_of(each, distribution) for each in packages}
    bom.components.update(components.values())
    needed = {(each.source, name) for each in packages for name in each.needs}
    for each in packages:
        needs = [components[each.source, name] for name in each.needs if (each.source, name) in components]
        bom.register_dependency(components[each.source, each.name], needs)
    bom.register_dependency(subject, [component for key, component in components.items() if key not in needed])
    return _without_a_time(bom)


def component_of(package: Package, distribution: str) -> Component:
    """Return a package as a component. Debian tells licenses in prose alone, so of its packages nothing is said."""
    debian = package.source == "deb"
    purl = PackageURL(
        type=package.source,
        namespace=distribution.partition("-")[0] if debian else None,
        name=package.name,
        version=package.version,
        qualifiers={"arch": package.architecture, "distro": distribution} if debian else None,
    )
    licenses = [LicenseFactory().make_from_string(package.license)] if package.license else []
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=str(purl),
        licenses=licenses,
    )


def of_chart(chart: Mapping[str, Any], images: Sequence[Image]) -> Bom:
    """Return the document of the chart: what it installs, and the charts that it brings with it."""
    purl = PackageURL(type="helm", name=chart["name"], version=chart["version"])
    subject = Component(
        type=ComponentType.APPLICATION,
        name=chart["name"],
        version=chart["version"],
        purl=purl,
        bom_ref=str(purl),
        properties=[Property(name="kubernetes", value=chart["kubeVersion"])],
    )
    needs = [image.component for image in images]
    for other in chart.get("dependencies", ()):
        brought = PackageURL(type="helm", name=other["name"], version=other["version"])
        needs.append(
            Component(
                type=ComponentType.APPLICATION,
                name=other["name"],
                version=other["version"],
                purl=brought,
                bom_ref=str(brought),
            )
        )
    about = json.dumps([str(purl), *(str(each.purl) for each in needs)])
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, about))
    bom.metadata.component = subject
    bom.components.update(needs)
    bom.register_dependency(subject, needs)
    for each in needs:
        bom.register_dependency(each)
    return _without_a_time(bom)


def _without_a_time(bom: Bom) -> Bom:
    """Return it as if it was always there: the time of a run says nothing of an image."""
    bom.metadata.timestamp = None  # type: ignore[assignment]  # CycloneDX can do without, the library's types cannot
    return bom


def text_of(bom: Bom) -> str:
    """Return a document as CycloneDX 1.6 in JSON."""
    text: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return f"{text}\n"


@contextmanager
def mounted(reference: str) -> Iterator[Path]:
    """Show the file system of an image of buildah's store."""
    container = _buildah("from", "--pull-never", reference)
    try:
        yield Path(_buildah("mount", container))
    finally:
        _buildah("rm", container)


def digest_of(reference: str) -> str:
    """Return the digest of the manifest of an image of buildah's store."""
    return _buildah("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", reference)


def _buildah(*arguments: str) -> str:
    line = ["buildah", *arguments]
    return subprocess.run(
        line, env=image_builder.environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release.sbom", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist/sbom", help="folder for the documents")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="NAME=REFERENCE",
        help="an image of buildah's store, instead of the one that these sources make",
    )
    options = parser.parse_args(arguments)
    named = dict(text.split("=", 1) for text in options.image)
    if missing := [name for name in PRODUCT if name not in named]:
        named |= image_builder.build(missing)
    options.out.mkdir(parents=True, exist_ok=True)
    images = []
    for name in sorted(named):
        image = Image(name, named[name], digest_of(named[name]))
        with mounted(image.reference) as root:
            packages, distribution = installed(root), release(root)
        _write(options.out / f"{name}.cdx.json", of_image(image, packages, distribution), len(packages))
        images.append(image)
    chart = of_chart(yaml.safe_load(CHART.read_text()), images)
    _write(options.out / "chart.cdx.json", chart, len(chart.components))
    return 0


def _write(file: Path, bom: Bom, count: int) -> None:
    file.write_text(text_of(bom))
    print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}: {count} components")


if __name__ == "__main__":
    sys.exit(main())
