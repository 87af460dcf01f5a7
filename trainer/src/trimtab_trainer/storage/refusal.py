"""The one place where boto3's errors become named reasons with a next step."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from ..certificates import why_not_taken
from ..contract import Credentials, Reason
from ..errors import SettingsInvalid, StorageFailed, TrainerError
from .store import ObjectDamaged, ObjectMissing

DENIED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Unauthorized",
    "401",
    "403",
}
NO_PATH_STYLE = {"SecondLevelDomainForbidden", "PathStyleDomainForbidden", "InvalidPathAccess", "PathStyleNotSupported"}
"""What storages answer that take a bucket only as part of the host: Alibaba, Tencent, Volcengine, others."""
ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
ROTATED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidToken"}
"""Codes that keys written anew into the mounted Secret may cure."""


def code_of(error: Exception) -> str:
    """Return S3's error code, or the HTTP status where there is none (HEAD has no body)."""
    if not isinstance(error, ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code if re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", code) else "a code that is none"


def status_of(error: Exception) -> int:
    """Return the HTTP status of an answer, 0 if there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def named(error: Exception, bucket: str, address: str, credentials: Credentials | None) -> TrainerError:
    """Return the `TrainerError` that says what went wrong at `address`; server messages of 403s are left out."""
    keys = f"Secret {credentials.secret_name}" if credentials and credentials.secret_name else "the access keys"
    if isinstance(error, ClientError):
        code = code_of(error)
        status = status_of(error)
        if code in NO_PATH_STYLE:
            return SettingsInvalid(
                f"the storage wants the bucket of {address} in its host name ({code}); set AWS_S3_ADDRESSING_STYLE to "
                f"virtual in {keys}"
            )
        if code == "NoSuchBucket":
            return SettingsInvalid(
                f"bucket {bucket} does not exist at this endpoint; create it, or correct the uri {address}",
                Reason.BUCKET_NOT_FOUND,
            )
        if code in ("NoSuchKey", "404", "NotFound"):
            return ObjectMissing(f"{address} does not exist")
        if code == "RequestTimeTooSkewed":
            return StorageFailed(f"{address}: the clocks of this node and of the storage differ too much")
        if code in ROTATED - DENIED:
            return StorageFailed(f"{address}: the session token in {keys} has expired; write a fresh one")
        if code in DENIED or status in (401, 403):
            return SettingsInvalid(
                f"access to {address} was denied ({code}); check {keys} and the bucket's policy", Reason.ACCESS_DENIED
            )
        if code in ELSEWHERE:
            return SettingsInvalid(f"bucket {bucket} is in another region ({code}); set AWS_REGION in {keys}")
        if code == "InvalidBucketName":
            return SettingsInvalid(f"{bucket!r} is no valid bucket name; correct the uri {address}")
        if code in ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"):
            return StorageFailed(f"{address}: bytes changed on their way to the storage ({code})")
        return StorageFailed(f"{address}: the storage answered {status} {code}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return SettingsInvalid(
            f"no access keys for {address}: set secretName, or give the pod's service account an identity",
            Reason.CREDENTIALS_MISSING,
        )
    if isinstance(error, FlexibleChecksumError):
        return ObjectDamaged(f"{address}: its bytes do not match the storage's own checksum; restore or delete it")
    if isinstance(error, SSLError) and why_not_taken(error) is not None:
        return SettingsInvalid(f"{address}: the storage's certificate is not trusted; set AWS_CA_BUNDLE in {keys}")
    words = [type(error).__name__, *([reason] if (reason := _system_words(error)) else [])]
    if isinstance(error, SSLError) and reason == os.strerror(errno.ENOENT):
        return SettingsInvalid(f"{address}: the file that AWS_CA_BUNDLE in {keys} names is not there; mount it")
    if isinstance(error, ParamValidationError):
        return SettingsInvalid(f"{address} cannot be asked for: {bucket!r} is no name of a bucket; correct the uri")
    return StorageFailed(f"{address}: the storage could not be asked ({', '.join(words)})")


def _system_words(error: BaseException) -> str | None:
    """Return what the operating system said, which names no host: libraries quote URLs, and sometimes headers."""
    seen: list[BaseException] = []
    ahead: list[object] = [error]
    while ahead and len(seen) < 32:
        each = ahead.pop(0)
        if not isinstance(each, BaseException) or each in seen:
            continue
        seen.append(each)
        if isinstance(each, socket.gaierror):
            return "its host name is not known"
        if isinstance(each, ssl.SSLError):
            return each.reason
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno)
        kwargs = getattr(each, "kwargs", {})
        ahead += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        ahead += [kwargs.get("error")] if isinstance(kwargs, dict) else []
    return None
