"""A file of manifests, read as a person wrote it: what is wrong, with its line; then what the API server says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import Conflict, Invalid, NotFound, near
from .kinds import kinds
from .loader import ManifestLoader
from .objects import mapping, text
from .paths import value_at
from .server import Resource, Server

MAXIMUM_BYTES = 3_000_000
"""Of a file: twice what the API server takes of one object."""
UNKNOWN_FIELD = re.compile(r'(?:unknown|duplicate) field "([^"]+)"')
UNDECLARED = "field not declared in schema"
STEP = re.compile(r"[^.\[\]]+")
REFERENCES = {
    "Evaluation": {"FineTuneJob": "spec.target.fineTuneJobName", "AdapterRollout": "spec.baseline.rolloutName"},
    "AdapterRollout": {"Evaluation": "spec.source.evaluationName"},
    "AdapterExport": {"FineTuneJob": "spec.source.fineTuneJobName", "Evaluation": "spec.source.evaluationName"},
}
"""Fields with the name of another object, by kind and the other's kind."""


@dataclass(frozen=True)
class Finding:
    """Something about a line of a file, from 1; `fault` is False for what may be meant so."""

    file: str
    line: int
    sentence: str
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.sentence}"


@dataclass(frozen=True)
class Document:
    """An object of a file, with the nodes that know its lines."""

    body: dict[str, Any]
    node: yaml.MappingNode

    @property
    def kind(self) -> str:
        return text(self.body.get("kind"))

    @property
    def name(self) -> str:
        return text(mapping(self.body.get("metadata")).get("name"))

    @property
    def namespace(self) -> str:
        """The namespace that it names, empty for the one that is meant."""
        return text(mapping(self.body.get("metadata")).get("namespace"))

    def line(self, path: str) -> int:
        """Return the line of a field such as `spec.tasks[0].name`, or of the nearest above it that is there."""
        here: yaml.Node = self.node
        line: int = here.start_mark.line + 1
        for step in STEP.findall(path):
            if isinstance(here, yaml.SequenceNode):
                item = _item(here, step)
                if item is None:
                    return line
                here, line = item, item.start_mark.line + 1
                continue
            pairs = here.value if isinstance(here, yaml.MappingNode) else []
            pair = next((pair for pair in pairs if pair[0].value == step), None)
            if pair is None:
                return line
            line, here = pair[0].start_mark.line + 1, pair[1]
        return line


def _item(sequence: yaml.SequenceNode, step: str) -> yaml.Node | None:
    """Return the item of a list that a path means: by place, or as in `name="a"` by a key of it."""
    if step.isdigit():
        return next(iter(sequence.value[int(step) : int(step) + 1]), None)
    key, _, value = step.partition("=")
    for each in sequence.value:
        pairs = each.value if isinstance(each, yaml.MappingNode) else []
        if any(name.value == key and item.value == value.strip('"') for name, item in pairs):
            found: yaml.Node = each
            return found
    return None


def read(file: Path) -> tuple[list[Document], list[Finding]]:
    """Return the objects of a file, and what reading finds wrong with it."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read ({error.strerror})", "give the path of a YAML file") from error
    if len(raw) > MAXIMUM_BYTES:
        raise Invalid(f"{file} has {len(raw):,} bytes, more than any manifest", "split it")
    name, documents, findings = str(file), [], []
    try:
        loader = ManifestLoader(raw.decode("utf-8-sig"))
        while loader.check_node():
            node = loader.get_node()
            body = loader.construct_document(node)
            findings += [Finding(name, line, sentence) for line, sentence in repeated(node)]
            if isinstance(body, dict) and isinstance(node, yaml.MappingNode):
                documents.append(Document(body, node))
            elif body is not None and node is not None:
                line = node.start_mark.line + 1
                findings.append(Finding(name, line, "this is no object; write apiVersion, kind, metadata"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        findings.append(Finding(name, line, f"this is no YAML: {error.problem}; look at its indent"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        findings.append(Finding(name, 1, f"this is no YAML: {error}; save it as UTF-8 text"))
    if not documents and not findings:
        findings.append(Finding(name, 1, "the file has no object; kubectl trimtab new writes some"))
    return documents, findings


def check(server: Server, namespace: str, file: Path) -> tuple[Finding, ...]:
    """Return what is wrong with a file: by reading it, and by a dry run on the API server, where nothing is stored.

    Raises:
        Problem: the file cannot be read, or the API server not asked.
    """
    documents, findings = read(file)
    seen: dict[tuple[str, str, str], int] = {}
    for document in documents:
        own = [Finding(str(file), line, sentence) for line, sentence in _shape(document, namespace, seen)]
        findings += own or _answered(server, namespace, document, file)
    findings += _missing(server, namespace, documents, file)
    return tuple(sorted(findings, key=lambda each: each.line))


def _shape(document: Document, namespace: str, seen: dict[tuple[str, str, str], int]) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with an object that the API server could not even be asked about."""
    names = [kind.name for kind in kinds()]
    if document.kind not in names:
        hint = near(document.kind, names) or f"check knows {', '.join(names)}"
        yield document.line("kind"), f"kind {document.kind or 'is missing'}: {hint}"
        return
    wanted = kinds()[0].api_version
    if document.body.get("apiVersion") != wanted:
        yield document.line("apiVersion"), f"apiVersion has to be {wanted}"
    if not document.name:
        yield document.line("metadata"), "metadata.name is missing; give it a name"
    else:
        line = document.line("metadata.name")
        first = seen.setdefault((document.kind, document.namespace or namespace, document.name), line)
        if first != line:
            yield line, f"{document.kind} {document.name} is in line {first} too; remove one"


def _answered(server: Server, namespace: str, document: Document, file: Path) -> list[Finding]:
    """Return what the API server has against an object: unknown fields, its schema, its rules, admission."""
    kind = next(kind for kind in kinds() if kind.name == document.kind)
    where = document.namespace or namespace
    path = Resource(kind.group, kind.version, kind.plural).path(where, document.name)
    try:
        server.apply_dry(path, document.body)
    except Invalid as problem:
        causes = problem.causes or tuple((field, "") for field in UNKNOWN_FIELD.findall(problem.sentence))
        found = [_finding(document, file, field.removeprefix("."), message) for field, message in causes]
        return found or [Finding(str(file), document.line(""), problem.sentence)]
    except Conflict as problem:
        return [Finding(str(file), document.line("metadata.name"), str(problem))]
    return []


def _finding(document: Document, file: Path, field: str, message: str) -> Finding:
    unknown = UNKNOWN_FIELD.search(message)
    field = unknown[1] if unknown else field
    none = unknown or not message or message == UNDECLARED
    said = f"{field} is not a field; kubectl explain has those" if none else f"{field}: {message}"
    if field in ("", "<nil>"):
        said = message
    return Finding(str(file), document.line(field), said)


def _missing(server: Server, namespace: str, documents: Sequence[Document], file: Path) -> Iterator[Finding]:
    """Yield references to what is neither in the file nor in the cluster: it would be waited for."""
    here = {(document.kind, document.namespace or namespace, document.name) for document in documents}
    here |= {  # the final of a search makes the Evaluation of its winner, with the name of the search
        ("Evaluation", document.namespace or namespace, document.name)
        for document in documents
        if document.kind == "FineTuneSweep" and mapping(value_at(document.body, ".spec.final"))
    }
    for document in documents:
        for kind_name, path in REFERENCES.get(document.kind, {}).items():
            value = text(value_at(document.body, f".{path}"))
            where = document.namespace or namespace
            if not value or (kind_name, where, value) in here:
                continue
            kind = next(kind for kind in kinds() if kind.name == kind_name)
            try:
                server.get(Resource(kind.group, kind.version, kind.plural).path(where, value))
            except NotFound:
                sentence = f"{kind_name} {value} is neither in this file nor in {where}; it will be waited for"
                yield Finding(str(file), document.line(path), sentence, fault=False)


def repeated(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield keys that a mapping has twice, of which YAML would take the last and say nothing."""
    waiting, visited = [node], set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in visited:
            continue
        visited.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            waiting += each.value
        if isinstance(each, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in each.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        yield key.start_mark.line + 1, f"{key.value} is written twice; remove one"
                    keys.add(key.value)
