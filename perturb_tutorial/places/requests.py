"""Requests to a bucket through boto3, and what their errors mean: an object that is missing, or a bucket that refuses.

Credentials are found by boto3 in its usual places: the environment, a profile, the role of the machine. Messages have
the kind of an error and never its text, which may hold an address with a password.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

SCHEME = "s3://"
CONNECTIONS = 32

_ACCESS = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
_SIGN_IN = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, or give the machine a role"
_MENDS = {
    "NoSuchBucket": "there is no such bucket; make it first, or mend its name",
    "InvalidBucketName": "no bucket can have this name; mend it",
    "AccessDenied": f"access is denied; the credentials need {_ACCESS}",
    "403": f"access is denied; the credentials need {_ACCESS}",
    "PermanentRedirect": "it is in another region; name that in AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "it is in another region; name that in AWS_DEFAULT_REGION",
    "NoCredentialsError": f"no credentials were found; {_SIGN_IN}",
    "PartialCredentialsError": f"the credentials are not complete; {_SIGN_IN}",
    "ProfileNotFound": "AWS_PROFILE names a profile that AWS's configuration does not have; mend the name",
}
"""What a user does about an error, by its code or class."""
_MISSING = {"NoSuchKey", "404", "NotFound"}
_CONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


class BucketError(RuntimeError):
    """A bucket that does not answer or refuses, which is never the fault of one object; one line that says the mend."""


def client() -> Any:
    """boto3's client, one for each process: a forked one must not share its parent's connections."""
    return _client_of(os.getpid())


@cache
def _client_of(process: int) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ImportError(
            f"{SCHEME} needs the package boto3: pip install 'perturb_tutorial[cloud]'"
        ) from error
    waits = Config(connect_timeout=10, read_timeout=60, max_pool_connections=CONNECTIONS)
    try:
        return boto3.session.Session().client("s3", config=waits)
    except ValueError:  # botocore's, which shows the address
        raise BucketError("AWS_ENDPOINT_URL is not the address of a server; mend it") from None


def broken_off() -> tuple[type[Exception], ...]:
    """What is raised where the content of an object does not come to its end."""
    from botocore import exceptions

    return exceptions.IncompleteReadError, exceptions.ResponseStreamingError, exceptions.ReadTimeoutError


def age(answer: Any) -> float | None:
    """Seconds from the writing of an object to this answer, both by the server's clock."""
    written = answer.get("LastModified")
    now = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if not isinstance(written, datetime) or now is None:
        return None
    return (parsedate_to_datetime(now) - written).total_seconds()


@contextmanager
def answers(bucket: str, path: object) -> Iterator[None]:
    """Errors of boto3 in the block become those of a file, or :class:`BucketError`."""
    try:
        yield
    except (BucketError, ImportError):
        raise
    except Exception as error:  # also those of sockets, which would be taken for the file's own
        answer = getattr(error, "response", None)
        code = str(answer["Error"].get("Code")) if isinstance(answer, dict) else type(error).__name__
        if code in _MISSING:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        if code in _CONDITION:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if not (isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "urllib3"))):
            raise
        kind = "it answers" if isinstance(answer, dict) else "no answer:"
        mend = _MENDS.get(code, f"{kind} {code}; is the network up, and AWS_ENDPOINT_URL, if set, right?")
        raise BucketError(f"{SCHEME}{bucket}: {mend}") from None
