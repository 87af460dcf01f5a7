"""What is in an image: the packages that Debian and Python themselves have written down in its file system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Literal

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

STATUS = "var/lib/dpkg/status"
ENVIRONMENT = "opt/trimtab"
"""The virtual environment of our images."""


@dataclass(frozen=True)
class Package:
    """A package that is installed.

    Attributes:
        needs: names of what it depends on, of the same source; those that are not installed too.
        license: an SPDX expression, or "" where the package gives none.
    """

    source: Literal["deb", "pypi"]
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    needs: tuple[str, ...] = ()


def installed(root: Path) -> list[Package]:
    """Return what is installed below a root folder, Debian's packages first, each by name."""
    return [*debian(root), *python(root / ENVIRONMENT)]


def debian(root: Path) -> list[Package]:
    """Return Debian's packages by its own database; none where there is none (an image made of one static program)."""
    status = root / STATUS
    if not status.exists():
        return []
    stanzas = map(HeaderParser().parsestr, status.read_text().split("\n\n"))
    found = [stanza for stanza in stanzas if stanza.get("Status", "").endswith(" installed")]
    providers = {name: stanza["Package"] for stanza in found for name in _names(stanza.get("Provides", ""))}
    there = {stanza["Package"] for stanza in found}
    return sorted((_debian_package(stanza, there, providers) for stanza in found), key=lambda each: each.name)


def _debian_package(stanza: Message, there: set[str], providers: dict[str, str]) -> Package:
    needs = []
    for field in ("Pre-Depends", "Depends"):
        for alternatives in filter(None, stanza.get(field, "").split(",")):
            options = [
                name if name in there else providers.get(name) for name in _names(alternatives.replace("|", ","))
            ]
            needs += [option for option in options if option is not None][:1]
    return Package("deb", stanza["Package"], stanza["Version"], stanza["Architecture"], "", tuple(dict.fromkeys(needs)))


def _names(text: str) -> list[str]:
    """Return the names of a list of packages, without versions and architectures."""
    return [re.split(r"[\s(:\[]", part.strip())[0] for part in text.split(",") if part.strip()]


def release(root: Path) -> str:
    """Return the distribution as package URLs name it: debian-12; "" for an image of one static program."""
    file = root / "usr/lib/os-release"
    if not file.exists():
        return ""
    said = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    return f"{said['ID']}-{said['VERSION_ID']}".replace('"', "")


def python(environment: Path) -> list[Package]:
    """Return the packages of a virtual environment by their metadata, ours included."""
    found = sorted(environment.glob("lib/python3*/site-packages/*.dist-info"))
    return sorted((_python_package(PathDistribution(folder)) for folder in found), key=lambda each: each.name)


def _python_package(distribution: PathDistribution) -> Package:
    about = distribution.metadata
    name, version = canonicalize_name(about["Name"]), about["Version"]
    needs = dict.fromkeys(_needed(distribution.requires or []))
    return Package("pypi", name, version, "", str(about.json.get("license_expression", "")), tuple(needs))


def _needed(requirements: list[str]) -> Iterator[str]:
    """Yield the names of what a package needs here; what an extra would add is not followed."""
    environment = {**default_environment(), "extra": ""}
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(
            {key: str(value) for key, value in environment.items()}
        ):
            yield canonicalize_name(requirement.name)
