"""What goes wrong with an object store: what is tried again, for how long, and what a person is told.

The libraries that speak to stores have errors of their own kinds, and none of them need be installed: they are told
apart by what the standard library, HTTP or S3 calls them.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from bagindex.errors import StoreError
from bagindex.remote.places import EXTRAS, Place
from bagindex.text import first_line

TRIES = 7
"""So often is a request sent that fails for a reason that may pass."""
PATIENCE = 90.0
"""Seconds after which no further try is made."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 8.0
_PASSING_CODES = frozenset(
    {
        *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeoutException", "Throttling"),
        *("ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
        *("OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest"),
    }
)
_PASSING_NUMBERS = frozenset({errno.EBUSY, errno.EIO, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)})
_PASSING_KINDS = frozenset(
    {
        *("HTTPClientError", "ConnectionError", "IncompleteReadError", "IncompleteRead", "ResponseParserError"),
        *("ClientPayloadError", "ClientConnectionError", "ServerTimeoutError", "FSTimeoutError", "ReadTimeoutError"),
        *("ServiceRequestError", "ServiceResponseError", "TransportError", "ResponseStreamingError"),
    }
)
_UNREACHABLE_KINDS = frozenset({"EndpointConnectionError", "ClientConnectorError", "ConnectTimeoutError"})
_NAMELESS_KINDS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        *("TokenRetrievalError", "DefaultCredentialsError", "ClientAuthenticationError", "UnauthorizedSSOTokenError"),
    }
)
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "Redirect"}
)
_Result = TypeVar("_Result")


class Conflict(Exception):  # noqa: N818 - it is met, not told
    """A condition of a request does not hold: something is there already, or is another than it was."""


class Absent(Exception):  # noqa: N818
    """There is no such object."""


def attempt(place: Place, what: str, request: Callable[[], _Result]) -> _Result:
    """Send a request, again where it fails for a reason that may pass.

    Args:
        place: the store.
        what: what is done, as in "cannot WHAT".
        request: sends it; may be called several times.

    Raises:
        Absent: there is no such object.
        Conflict: a condition of the request does not hold.
        StoreError: it fails.
    """
    began = time.monotonic()
    wait = _FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return request()
        except (Absent, Conflict, StoreError):
            raise
        except Exception as error:
            _raise_known(place, error)
            if not left or not _passes(error) or time.monotonic() - began > PATIENCE:
                raise _failed(place, what, error, time.monotonic() - began) from error
        time.sleep(wait * random.uniform(0.5, 1))  # many workers must not come back at the same moment
        wait = min(2 * wait, _LONGEST_WAIT)
    raise AssertionError("the last of them returns or raises")


def not_installed(place: Place) -> StoreError:
    """What to say where the library that speaks a protocol is missing."""
    extra = EXTRAS.get(place.protocol)
    how = f"pip install 'bagindex[{extra}]'" if extra else f"install what fsspec needs for {place.protocol}"
    return StoreError(f"{place} cannot be opened: {how}")


def _raise_known(place: Place, error: Exception) -> None:
    """Raise what trying again would not change."""
    code, kinds = _code(error), _kinds(error)
    where = f"{place.protocol}://{place.bucket}"
    if code in ("NoSuchBucket", "ContainerNotFound") or "bucket does not exist" in str(error):
        raise StoreError(f"there is no bucket {where}: make it, or give another place") from error
    if code in ("PreconditionFailed", "412", "ConditionNotMet", "BlobAlreadyExists") or isinstance(
        error, FileExistsError
    ):
        raise Conflict(first_line(error)) from error
    if kinds & _NAMELESS_KINDS or ("credentials" in str(error).lower() and not code):
        raise StoreError(
            f"no credentials for {where} ({first_line(error)}): {_HOW_TO_LOG_IN.get(place.protocol, 'log in first')}"
        ) from error
    if code in _ELSEWHERE:
        raise StoreError(
            f"{where} is in another region ({first_line(error)}): set AWS_DEFAULT_REGION to the bucket's"
        ) from error
    if code in ("NoSuchKey", "404", "BlobNotFound") or isinstance(error, FileNotFoundError):
        raise Absent(first_line(error)) from error
    if isinstance(error, PermissionError) or code in ("403", "AccessDenied", "401"):
        raise StoreError(
            f"{where} refuses ({first_line(error)}): see whether your credentials are right and may do that"
        ) from error


_HOW_TO_LOG_IN = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "az": "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def _failed(place: Place, what: str, error: Exception, seconds: float) -> StoreError:
    said = (isinstance(error, OSError) and error.strerror) or first_line(error)
    said = said.rstrip(".")
    if _kinds(error) & _UNREACHABLE_KINDS:
        return StoreError(f"{place} cannot be reached ({said}): see whether the network and the address are right")
    tried = f", also after {seconds:.0f} seconds" if seconds >= 1 else ""
    return StoreError(f"{place}: cannot {what} ({said}{tried}): run the same command again; what is committed stays")


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed in a while."""
    code = _code(error)
    if code in _PASSING_CODES or (code.isdigit() and (int(code) >= 500 or int(code) in (408, 425, 429))):
        return True
    if isinstance(error, TimeoutError | ConnectionError | EOFError):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_NUMBERS:
        return True
    return bool(_kinds(error) & (_PASSING_KINDS | _UNREACHABLE_KINDS))


def _code(error: BaseException) -> str:
    """What the store's protocol calls an error, or its HTTP status; empty where neither is known."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        for name in ("error_code", "code", "status_code", "status"):
            found = getattr(each, name, None)
            if isinstance(found, int | str) and found:
                return str(found)
    return ""


def _kinds(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for each in (error, error.__cause__) if each for kind in type(each).__mro__)
