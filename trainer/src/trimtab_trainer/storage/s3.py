"""`S3Store`: any S3-compatible storage through boto3.

One streamed GET with the hash taken while reading is faster on few cores than parallel ranges, so downloads stream.
The transfer client is always the classic one: boto3's other client ignores endpoint URLs.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ..contract import Credentials
from ..errors import SettingsInvalid, StorageFailed, TrainerError
from .keys import make_client, read_keys
from .refusal import ROTATED, code_of, named, status_of
from .store import CHUNK_BYTES, FileEntry, ObjectDamaged, ObjectInfo, ObjectMissing, Store, checked

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

T = TypeVar("T")

ERRORS = (BotoCoreError, ClientError, Boto3Error, HTTPError, OSError)
SINGLE_PUT_BYTES = 8 << 20
STREAM_ATTEMPTS = 5
CONFLICT_ATTEMPTS = 8
TRANSFER = TransferConfig(
    multipart_threshold=SINGLE_PUT_BYTES,
    multipart_chunksize=32 << 20,
    max_concurrency=4,
    preferred_transfer_client="classic",
)


class S3Store(Store):
    """Objects below a bucket's prefix."""

    def __init__(self, uri: str, bucket: str, prefix: str, credentials: Credentials | None) -> None:
        self.uri = uri
        self._bucket = bucket
        self._root = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._credentials = credentials
        self._keys = read_keys(credentials) if credentials else None
        self._client = make_client(credentials, self._keys)
        self._deletes_many = True

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        def listing(client: S3Client) -> list[ObjectInfo]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._root + prefix)
            return [
                ObjectInfo(item["Key"].removeprefix(self._root), item["Size"])
                for page in pages
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")  # consoles make such objects for empty folders
            ]

        return sorted(self._call(prefix, listing))

    def chunks(self, path: str, offset: int = 0) -> Generator[bytes]:
        """Yield an object's bytes; a broken connection goes on where it broke, if the object is still the same."""
        key, etag, failures = self._key(path), "", 0

        def request(client: S3Client) -> tuple[StreamingBody, str, int, int | None]:
            if etag:
                answer = client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={offset}-", IfMatch=etag)
            elif offset:
                answer = client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={offset}-")
            else:
                answer = client.get_object(Bucket=self._bucket, Key=key)
            # 206 is a part, and so is what says which one it is; with 200 a gateway that knows no ranges begins from
            # the first byte.
            part = answer["ResponseMetadata"]["HTTPStatusCode"] == 206 or answer.get("ContentRange")
            begin = offset if part else 0
            length = answer.get("ContentLength")  # absent where a gateway sends in pieces
            return answer["Body"], answer.get("ETag", ""), begin, None if length is None else begin + length

        while True:
            body, etag, at, total = self._call(path, request)
            try:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    at += len(chunk)
                    if at > offset:
                        fresh, offset = chunk[offset - at :], at
                        yield fresh
                if total is None or offset == total:
                    return
                broken: TrainerError = StorageFailed(f"{self.address(path)} gave {offset} bytes of {total}")
            except ERRORS as error:
                broken = self._named(error, path)
            finally:
                body.close()
            failures += 1
            beyond = total is not None and offset > total
            if failures == STREAM_ATTEMPTS or isinstance(broken, ObjectDamaged) or beyond or not etag:
                raise broken
            time.sleep(min(8, 2**failures / 4))

    def put(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def put_once(self, path: str, data: bytes) -> bool:
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                self._put(path, data, once=True)
            except _Conflict as conflict:
                if conflict.lost:
                    return False
                time.sleep(min(2, 2**attempt / 10))
            else:
                return True
        raise StorageFailed(f"{self.address(path)}: other writers were in the way {CONFLICT_ATTEMPTS} times")

    def upload(self, source: Path, path: str) -> FileEntry:
        size = source.stat().st_size
        if size <= SINGLE_PUT_BYTES:
            data = source.read_bytes()
            self._put(path, data)
            return FileEntry(path, len(data), hashlib.sha256(data).hexdigest())
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = self._key(path)

        def send(client: S3Client) -> None:
            with source.open("rb") as file:
                client.upload_fileobj(file, self._bucket, key, {"ChecksumAlgorithm": "SHA256"}, Config=TRANSFER)

        self._call(path, send)
        return FileEntry(path, size, sha256)

    def exists(self, path: str) -> bool:
        key = self._key(path)
        try:
            self._client_call(lambda client: client.head_object(Bucket=self._bucket, Key=key))
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchKey", "NotFound"):
                return False
            raise self._named(error, path) from None
        except ERRORS as error:
            raise self._named(error, path) from None
        return True

    def delete(self, paths: Iterable[str]) -> None:
        for batch in _batches(sorted(paths), 1000):
            if not (self._deletes_many and self._delete_many(batch)):
                for path in batch:
                    self._delete_one(path)

    def _delete_many(self, paths: Sequence[str]) -> bool:
        """Delete up to 1,000 objects; False where the storage does not take such a request, ever.

        Many storages want a Content-MD5 with it, which boto3 does not send any more; others do not know it.
        """
        keys: list[ObjectIdentifierTypeDef] = [{"Key": self._key(path)} for path in paths]
        try:
            answer = self._client_call(
                lambda client: client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            )
        except ERRORS as error:
            if status_of(error) in (400, 405, 411, 501) and code_of(error) not in ROTATED:
                self._deletes_many = False
                return False
            raise self._named(error, paths[0]) from None
        if errors := answer.get("Errors"):
            failed = ClientError({"Error": {"Code": errors[0].get("Code", "")}}, "DeleteObjects")
            raise self._named(failed, errors[0].get("Key", "").removeprefix(self._root))
        return True

    def _delete_one(self, path: str) -> None:
        key = self._key(path)
        with suppress(ObjectMissing):  # deleted before
            self._call(path, lambda client: client.delete_object(Bucket=self._bucket, Key=key))

    def _put(self, path: str, data: bytes, once: bool = False) -> None:
        key = self._key(path)
        sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()

        def put(client: S3Client) -> None:
            if once:
                client.put_object(Bucket=self._bucket, Key=key, Body=data, ChecksumSHA256=sha256, IfNoneMatch="*")
            else:
                client.put_object(Bucket=self._bucket, Key=key, Body=data, ChecksumSHA256=sha256)

        self._call(path, put, conflicts=once)

    def _call(self, path: str, request: Callable[[S3Client], T], conflicts: bool = False) -> T:
        try:
            return self._client_call(request)
        except ERRORS as error:
            status = status_of(error)
            if conflicts and status in (409, 412):
                raise _Conflict(lost=status == 412) from None
            if conflicts and (status == 501 or code_of(error) == "NotImplemented"):
                raise SettingsInvalid(
                    f"{self.address(path)}: the storage lacks conditional writes (If-None-Match), which keep two "
                    "writers apart; use one that has them"
                ) from None
            # What libraries raise quotes URLs and headers, and would be part of a traceback.
            raise self._named(error, path) from None

    def _client_call(self, request: Callable[[S3Client], T]) -> T:
        """Call S3; when it refuses the keys and the mounted Secret holds others by now, call once more with those."""
        try:
            return request(self._client)
        except ClientError as error:
            if self._credentials is None or code_of(error) not in ROTATED:
                raise
            keys = read_keys(self._credentials)
            if keys == self._keys:
                raise
            self._keys, self._client = keys, make_client(self._credentials, keys)
            return request(self._client)

    def _named(self, error: Exception, path: str) -> TrainerError:
        return named(error, self._bucket, self.address(path), self._credentials)

    def _key(self, path: str) -> str:
        return self._root + checked(path)


class _Conflict(Exception):
    def __init__(self, lost: bool) -> None:
        super().__init__()
        self.lost = lost


def _batches(paths: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]
