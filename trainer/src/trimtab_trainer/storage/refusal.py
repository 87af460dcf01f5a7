"""The one place where boto3's errors become named reasons with a next step."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)

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
ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
ROTATED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidToken"}
"""Codes that keys written anew into the mounted Secret may cure."""


def code_of(error: Exception) -> str:
    """Return S3's error code, or the HTTP status where there is none (HEAD has no body)."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def named(error: Exception, bucket: str, address: str, credentials: Credentials | None) -> TrainerError:
    """Return the `TrainerError` that says what went wrong at `address`; server messages of 403s are left out."""
    keys = f"Secret {credentials.secret_name}" if credentials and credentials.secret_name else "the access keys"
    if isinstance(error, ClientError):
        code = code_of(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
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
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return SettingsInvalid(f"{address}: the storage's certificate is not trusted; set AWS_CA_BUNDLE in {keys}")
    if isinstance(error, BotoCoreError):
        return StorageFailed(f"{address}: {error}")
    return StorageFailed(f"{address}: {type(error).__name__}: {error}")
