"""`python -m deploy.release.publish STEP`: the steps of a release, each a target of the Makefile.

images      build the images for this machine's architecture, and push them
index       one name for the images of all architectures
chart       package the chart with the digests of these images in it, and push it
provenance  say of each image which commit it was made of, and by what
sign        sign images and chart, and attest bills of materials and provenance

Without a registry everything is written into folders below dist/, and `sign` says what it would sign. Signing is
keyless: cosign takes the identity of the workflow that runs it.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab_local import binaries, toolchain
from trimtab_local import images as image_builder

from .sbom import PRODUCT, ROOT

DIST = ROOT / "dist"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""As the kernel names them, and as images do."""
BUILDER = "https://trimtab.dev/release"
"""What made an image, as provenance names it: this file at the commit that it tells of."""


@dataclass(frozen=True)
class Release:
    """What is released, and where to.

    Attributes:
        registry: host and folder, without https://; "": into folders below dist/.
        images: names of the images.
        architectures: those that are joined under one name.
    """

    version: str
    registry: str
    images: tuple[str, ...]
    architectures: tuple[str, ...]

    def place(self, name: str, tag: str) -> str:
        """Return where an image lies, in the words of skopeo and buildah."""
        if self.registry:
            return f"docker://{self.reference(name)}:{tag}"
        return f"oci:{DIST / 'images' / name}:{tag}"

    def reference(self, name: str) -> str:
        return f"{self.registry}/trimtab/{name}"

    @property
    def digests(self) -> dict[str, str]:
        """What `index` has found."""
        return _noted("digests.json")

    def digests_of(self, architecture: str) -> dict[str, str]:
        """What `images` has found on a machine of this architecture."""
        return _noted(f"digests-{architecture}.json")


def _noted(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((DIST / name).read_text())
    return found


def _note(name: str, digests: Mapping[str, str]) -> None:
    (DIST / name).write_text(json.dumps(digests, indent=1) + "\n")


def images(release: Release) -> None:
    """Build for this machine's architecture, and push."""
    built = image_builder.build(release.images)
    architecture, digests = ARCHITECTURES[platform.machine()], {}
    for name, image in built.items():
        (DIST / "images" / name).mkdir(parents=True, exist_ok=True)
        copy = ("skopeo", "copy", "--quiet", "--digestfile", str(DIST / "digest"), f"containers-storage:{image}")
        _run(*copy, release.place(name, f"{release.version}-{architecture}"))
        digests[name] = _taken()
    _note(f"digests-{architecture}.json", digests)


def _taken() -> str:
    """Return the digest that a program was told to write, and leave nothing of it."""
    file = DIST / "digest"
    digest = file.read_text().strip()
    file.unlink()
    return digest


def index(release: Release) -> None:
    """Join the architectures under the version, and note the digests."""
    digests = {}
    for name in release.images:
        joined = f"trimtab-release-{name}"
        _run("buildah", "manifest", "rm", joined, check=False)
        _run("buildah", "manifest", "create", joined)
        for architecture in release.architectures:
            _run("buildah", "manifest", "add", joined, release.place(name, f"{release.version}-{architecture}"))
        push = ("buildah", "manifest", "push", "--all", "--quiet", "--digestfile", str(DIST / "digest"), joined)
        _run(*push, release.place(name, release.version))
        digests[name] = _taken()
    _note("digests.json", digests)


def chart(release: Release) -> None:
    """Package the chart, pinned to the images of this release, and push it."""
    folder = DIST / "chart" / "trimtab"
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(ROOT / "charts/trimtab", folder)
    values = folder / "values.yaml"
    values.write_text(pinned(values.read_text(), release.registry, release.digests))
    helm = shutil.which("helm") or str(binaries.ensure(["helm"]) / "helm")
    versions = ("--version", release.version, "--app-version", release.version)
    _run(helm, "package", str(folder), "--destination", str(DIST), *versions)
    if release.registry:
        _run(helm, "push", str(packaged(release)), f"oci://{release.registry}/charts")


def packaged(release: Release) -> Path:
    return DIST / f"trimtab-{release.version}.tgz"


def pinned(values: str, registry: str, digests: Mapping[str, str]) -> str:
    """Return the chart's values.yaml with the registry and the images' digests in it, every comment as it was.

    Raises:
        ValueError: a value is not where it was looked for.
    """
    text = _set(values, r"^imageRegistry: \"\"$", f'imageRegistry: "{registry}"')
    for name, digest in digests.items():
        inside = rf"(^{name}:\n(?:[ #].*\n)*?  image:(?:\n(?:    .*\n)*?    | .*))digest: \"\""
        text = _set(text, inside, rf'\g<1>digest: "{digest}"')
    return text


def _set(text: str, pattern: str, replacement: str) -> str:
    changed, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"values.yaml has no {pattern}")
    return changed


def provenance(release: Release) -> None:
    """Write a predicate of SLSA provenance for each image."""
    commit = _run("git", "-C", str(ROOT), "rev-parse", "HEAD")
    folder = DIST / "provenance"
    folder.mkdir(parents=True, exist_ok=True)
    for name in release.digests:
        predicate = provenance_of(name, release.version, commit)
        (folder / f"{name}.json").write_text(json.dumps(predicate, indent=1) + "\n")


def provenance_of(name: str, version: str, commit: str) -> dict[str, Any]:
    """Return the predicate https://slsa.dev/provenance/v1 of an image: what it was made of, and how."""
    return {
        "buildDefinition": {
            "buildType": f"{BUILDER}/images@v1",
            "externalParameters": {"image": name, "version": version, "command": "make release-images"},
            "internalParameters": {"containerfile": f"deploy/images/Containerfile.{name}"},
            "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": commit}}],
        },
        "runDetails": {"builder": {"id": BUILDER}},
    }


def sign(release: Release) -> None:
    """Sign every image and the chart by digest, and attest what is known of the images."""
    for line in signatures(release):
        if release.registry:
            _run(*line)
        else:
            print("would run:", *line)


def signatures(release: Release) -> list[list[str]]:
    """Return the commands that sign."""
    lines = []
    for name, digest in release.digests.items():
        subject = f"{release.reference(name)}@{digest}"
        made = str(DIST / "provenance" / f"{name}.json")
        lines += [
            ["cosign", "sign", "--yes", "--recursive", subject],
            ["cosign", "attest", "--yes", "--type", "slsaprovenance1", "--predicate", made, subject],
        ]
    for architecture in release.architectures:
        for name, digest in release.digests_of(architecture).items():
            holds = str(DIST / "sbom" / architecture / f"{name}.cdx.json")
            subject = f"{release.reference(name)}@{digest}"
            lines.append(["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", holds, subject])
    bundle = f"{packaged(release)}.sigstore.json"
    return [*lines, ["cosign", "sign-blob", "--yes", "--bundle", bundle, str(packaged(release))]]


def _run(*line: str, check: bool = True) -> str:
    print("+", *line, flush=True)
    errors = None if check else subprocess.DEVNULL
    done = subprocess.run(
        line, env=image_builder.environment(), stdout=subprocess.PIPE, stderr=errors, text=True, check=check
    )
    return done.stdout.strip()


STEPS = {"images": images, "index": index, "chart": chart, "provenance": provenance, "sign": sign}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.release.publish", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--version", required=True)
    parser.add_argument("--registry", default="")
    parser.add_argument("--images", type=_words, default=PRODUCT, metavar="NAME,...")
    parser.add_argument("--architectures", type=_words, default=tuple(ARCHITECTURES.values()), metavar="NAME,...")
    options = parser.parse_args(arguments)
    DIST.mkdir(exist_ok=True)
    toolchain.install(toolchain.IMAGE_PACKAGES)
    STEPS[options.step](Release(options.version, options.registry, options.images, options.architectures))
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    sys.exit(main())
