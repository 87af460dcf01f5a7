"""Make training rows of an API server's own documentation: a question for every described field, and its description.

    kubectl get --raw /openapi/v2 > openapi.json
    python deploy/samples/field_guide.py --openapi openapi.json --write rows.jsonl
    python deploy/samples/field_guide.py --openapi openapi.json --upload s3://datasets/field-guide/train/

A row is {"messages": [question, answer], "group": hash of the answer, "apiGroup": "batch"}: Messages data, kept
together by `group` when rows are held out: many fields share one description. OpenAPI v2 and v3 documents are taken.
Uploading takes credentials and endpoint from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, AWS_REGION, AWS_S3_ADDRESSING_STYLE.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Schema = dict[str, Any]
Row = dict[str, Any]

FILE = "field-guide.jsonl"
EVERYWHERE = ("apiVersion", "kind", "metadata")
"""Fields that every object has; asking for them teaches nothing."""
HELD_OUT_FRACTION = 0.1


def rows_of(document: Schema) -> list[Row]:
    """Return a row for every described field of every kind, each field once, by its shortest path."""
    schemas: dict[str, Schema] = document.get("definitions") or document.get("components", {}).get("schemas", {})
    rows, asked = [], set()
    for kind, group, path, description in _fields(schemas):
        article = "an" if kind[0] in "AEIO" else "a"
        question = f"What is {path} of {article} {kind} for?"
        if question in asked:  # the same field of an older version
            continue
        asked.add(question)
        answer = " ".join(description.split())
        rows.append(
            {
                "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                "group": hashlib.sha256(answer.encode()).hexdigest()[:16],
                "apiGroup": group,
            }
        )
    return rows


def _fields(schemas: dict[str, Schema]) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, API group, path and description, breadth first from all kinds at once, so that paths are short."""
    queue: deque[tuple[str, str, str, Schema]] = deque()
    for _, kind, group, schema in sorted(_kinds(schemas), key=lambda found: (found[0], found[2], found[1])):
        queue.append((kind, group, "", schema))
    seen: set[str] = set()
    while queue:
        kind, group, path, schema = queue.popleft()
        for name, field in schema.get("properties", {}).items():
            if not path and name in EVERYWHERE:
                continue
            here = f"{path}.{name}" if path else name
            if field.get("description"):
                yield kind, group, here, field["description"]
            reference = _reference(field)
            if reference is None:
                queue.append((kind, group, here, _innermost(field)))
            elif reference not in seen:
                seen.add(reference)
                queue.append((kind, group, here, _innermost(schemas.get(reference, {}))))


def _kinds(schemas: dict[str, Schema]) -> Iterator[tuple[int, str, str, Schema]]:
    """Yield the rank of its version, name, API group and schema of everything that can be created; not lists."""
    for schema in schemas.values():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1 and "metadata" in schema.get("properties", {}) and not kinds[0]["kind"].endswith("List"):
            (found,) = kinds
            yield _rank(found["version"]), found["kind"], found["group"] or "core", schema


def _rank(version: str) -> int:
    """Return 0 for v1 and more for what is older or less stable: alphas come last."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return 10_000
    return {None: 0, "beta": 1_000, "alpha": 2_000}[found[2]] + 100 - int(found[1])


def _reference(field: Schema) -> str | None:
    """Return the name of the schema that a field, its items or its values refer to."""
    inner = _innermost(field)
    for candidate in (inner, *inner.get("allOf", [])):
        if "$ref" in candidate:
            return str(candidate["$ref"]).rpartition("/")[2]
    return None


def _innermost(field: Schema) -> Schema:
    """Step into lists and maps."""
    while True:
        for step in ("items", "additionalProperties"):
            if isinstance(field.get(step), dict):
                field = field[step]
                break
        else:
            return field


def overlap(rows: list[Row], *, by_group: bool, seed: int = 17) -> tuple[int, int]:
    """Hold rows out and return their number, and how many of them have their answer in the rest."""
    chance = random.Random(seed)
    units: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        units.setdefault(row["group"] if by_group else str(number), []).append(row)
    names = sorted(units)
    chance.shuffle(names)
    held_out: list[Row] = []
    while names and len(held_out) < HELD_OUT_FRACTION * len(rows):
        held_out += units[names.pop()]
    rest = {row["group"] for name in names for row in units[name]}
    return len(held_out), sum(row["group"] in rest for row in held_out)


def report(rows: list[Row]) -> str:
    """Say how many rows there are, and what holding them out by group is good for."""
    answers = {row["group"] for row in rows}
    many, leaked = overlap(rows, by_group=False)
    grouped, none = overlap(rows, by_group=True)
    return (
        f"{len(rows)} rows, {len(answers)} distinct answers\n"
        f"held out one by one: {leaked} of {many} rows have their answer among the others\n"
        f"held out by group: {none} of {grouped}"
    )


def as_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def storage() -> S3Client:
    """Return a client for the storage that the environment names."""
    import boto3
    from botocore.config import Config

    # Buckets as names of hosts need DNS that storage outside of AWS seldom has.
    style: Any = os.environ.get("AWS_S3_ADDRESSING_STYLE") or ("path" if os.environ.get("AWS_ENDPOINT_URL") else "auto")
    addressing = Config(s3={"addressing_style": style})
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION"), config=addressing)


def upload(text: str, uri: str) -> str:
    """Put the rows to an s3:// URI, or into it when it ends with a slash; return where they are."""
    where = urlsplit(uri)
    if where.scheme != "s3":
        raise SystemExit(f"not an s3:// URI: {uri}")
    key = where.path.lstrip("/")
    key += FILE if key.endswith("/") or not key else ""
    storage().put_object(Bucket=where.netloc, Key=key, Body=text.encode())
    return f"s3://{where.netloc}/{key}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openapi", type=Path, required=True, help="document of the API server, as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="file for the rows")
    parser.add_argument("--upload", metavar="URI", help="s3:// object, or prefix that ends with a slash, for the rows")
    options = parser.parse_args(arguments)
    rows = rows_of(json.loads(options.openapi.read_text()))
    if not rows:
        raise SystemExit(f"{options.openapi} describes no field of any kind")
    print(report(rows))
    if options.write:
        options.write.write_text(as_jsonl(rows))
        print(f"written to {options.write}")
    if options.upload:
        print(f"uploaded to {upload(as_jsonl(rows), options.upload)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
