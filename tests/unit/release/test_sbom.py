"""Bills of materials: valid CycloneDX, of what is in a file system, the same bytes twice."""

from __future__ import annotations

import json
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.release.inventory import ENVIRONMENT, STATUS, Package, debian, installed, python, release
from deploy.release.sbom import CHART, PRODUCT, Image, of_chart, of_image, text_of

DIGEST = "sha256:" + "a" * 64
OPERATOR = Image("operator", "registry.example:5000/trimtab/operator:0.1.0", DIGEST)
DPKG = """\
Package: python3
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1+b1
Pre-Depends: libc6 (>= 2.14)
Depends: awk | python3-full, libpython3-stdlib (= 3.11.2-1+b1), libc6

Package: mawk
Status: install ok installed
Architecture: amd64
Provides: awk
Version: 1.3.4

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
"""

Body = dict[str, Any]


def file_system(root: Path) -> Path:
    """Write what an image of ours has of it."""
    status = root / STATUS
    status.parent.mkdir(parents=True)
    status.write_text(DPKG)
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    needs = [
        "Requires-Dist: PyJWT[crypto]>=2",
        "Requires-Dist: colorama ; sys_platform == 'win32'",
        "Requires-Dist: aiohttp ; extra == 'fast'",
    ]
    for name, lines in {"trimtab_operator-0.1.0": needs, "PyJWT-2.15.1": ["License-Expression: MIT"]}.items():
        folder = root / ENVIRONMENT / "lib/python3.11/site-packages" / f"{name}.dist-info"
        folder.mkdir(parents=True)
        title, version = name.split("-")
        about = [f"Name: {title}", f"Version: {version}", *lines]
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *about, "", "About."]))
    return root


def checked(bom: Bom) -> Body:
    """Return a document as JSON, and fail where CycloneDX's own schema takes it amiss."""
    text = text_of(bom)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: Body = json.loads(text)
    return document


def by_name(document: Body) -> dict[str, Body]:
    return {component["name"]: component for component in document["components"]}


def needs(document: Body, name: str) -> set[str]:
    """Return the names of what a component depends on."""
    names = {component["bom-ref"]: component["name"] for component in document["components"]}
    everything = {**by_name(document), document["metadata"]["component"]["name"]: document["metadata"]["component"]}
    (entry,) = [each for each in document["dependencies"] if each["ref"] == everything[name]["bom-ref"]]
    return {names[ref] for ref in entry.get("dependsOn", [])}


def test_debians_packages_are_those_that_are_installed_with_what_they_need(tmp_path: Path) -> None:
    assert debian(file_system(tmp_path)) == [
        Package("deb", "libc6", "2.36-9", "amd64"),
        Package("deb", "mawk", "1.3.4", "amd64"),
        Package("deb", "python3", "3.11.2-1+b1", "amd64", needs=("libc6", "mawk")),
    ]


def test_pythons_packages_are_those_of_the_environment_and_extras_are_not_followed(tmp_path: Path) -> None:
    assert python(file_system(tmp_path) / ENVIRONMENT) == [
        Package("pypi", "pyjwt", "2.15.1", license="MIT"),
        Package("pypi", "trimtab-operator", "0.1.0", needs=("pyjwt",)),
    ]


def test_the_document_of_an_image(tmp_path: Path) -> None:
    root = file_system(tmp_path)
    document = checked(of_image(OPERATOR, installed(root), release(root)))
    subject = document["metadata"]["component"]
    assert (subject["type"], subject["name"], subject["version"]) == ("container", "trimtab/operator", "0.1.0")
    assert subject["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert subject["purl"].startswith(f"pkg:oci/operator@{DIGEST}?")
    found = by_name(document)
    assert found["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12"
    assert found["pyjwt"]["purl"] == "pkg:pypi/pyjwt@2.15.1"
    assert found["pyjwt"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert needs(document, "trimtab-operator") == {"pyjwt"}
    assert needs(document, "python3") == {"libc6", "mawk"}
    assert needs(document, "trimtab/operator") == {"python3", "trimtab-operator"}, "the others come with these"


def test_two_runs_over_one_image_write_the_same_bytes(tmp_path: Path) -> None:
    packages = installed(file_system(tmp_path))
    first, second = (text_of(of_image(OPERATOR, packages, "debian-12")) for _ in range(2))
    assert first == second
    assert str(tmp_path) not in first


def test_an_image_of_one_static_program_has_a_document_too(tmp_path: Path) -> None:
    assert release(tmp_path) == ""
    assert checked(of_image(OPERATOR, installed(tmp_path), "")).get("components", []) == []


def test_everything_of_a_real_environment_is_in_it() -> None:
    """The one that these tests run in: hundreds of packages, with all that their metadata may look like."""
    packages = python(Path(sys.prefix))
    document = checked(of_image(OPERATOR, packages, "debian-12"))
    there = {distribution.metadata["Name"].lower().replace("_", "-") for distribution in distributions()}
    assert {"kopf", "torch", "pydantic"} <= by_name(document).keys() <= {each.replace(".", "-") for each in there}
    assert needs(document, "kopf") >= {"aiohttp", "click"}


def test_the_charts_document_names_the_images_and_the_charts_that_it_brings() -> None:
    images = [Image(name, f"registry.example/trimtab/{name}:0.1.0", DIGEST) for name in PRODUCT]
    chart = yaml.safe_load(CHART.read_text())
    document = checked(of_chart(chart, images))
    assert document["metadata"]["component"]["purl"] == f"pkg:helm/trimtab@{chart['version']}"
    assert needs(document, "trimtab") == {f"trimtab/{name}" for name in PRODUCT}
    other = {"name": "grafana", "version": "9.0.0", "repository": "oci://registry.example/charts"}
    with_another = checked(of_chart({**chart, "dependencies": [other]}, images))
    assert needs(with_another, "trimtab") == {*needs(document, "trimtab"), "grafana"}
    assert with_another["serialNumber"] != document["serialNumber"]


@pytest.mark.parametrize("name", PRODUCT)
def test_the_images_are_those_that_the_chart_asks_for(name: str) -> None:
    values = yaml.safe_load((CHART.parent / "values.yaml").read_text())
    assert "image" in values[name]
    asked = {each for each, value in values.items() if isinstance(value, dict) and "image" in value}
    assert asked == {*PRODUCT, "evaluator"}
    assert not values["evaluator"]["image"]  # made from the engine that serves, by who serves: it is not published
