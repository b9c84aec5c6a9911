"""AWS Signature Version 4 for one request (IAM User Guide, "Create a signed AWS API request"), and where the keys are.

The AWS keys are taken from the environment, else from the profile in ~/.aws/credentials, as AWS's own tools do.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """AWS keys; the secret ones are not shown."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def find_credentials() -> Credentials | None:
    """Return the keys of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else of the profile, else None."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if access and secret:
        return Credentials(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
    profile = _profile("AWS_SHARED_CREDENTIALS_FILE", "credentials", "{}")
    access, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
    return Credentials(access, secret, profile.get("aws_session_token", "")) if access and secret else None


def find_region() -> str:
    """Return the region of AWS_REGION, AWS_DEFAULT_REGION or the profile; empty where there is none."""
    told = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return told or _profile("AWS_CONFIG_FILE", "config", "profile {}").get("region", "")


def _profile(variable: str, name: str, section: str) -> Mapping[str, str]:
    """Return the values of the chosen profile in one of AWS's files; empty where it cannot be read."""
    path = Path(os.environ.get(variable) or "~/.aws/" + name).expanduser()
    chosen = os.environ.get("AWS_PROFILE") or "default"
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigParserError, OSError, UnicodeDecodeError):
        return {}
    wanted = "default" if chosen == "default" else section.format(chosen)
    return dict(parser[wanted]) if wanted in parser else {}


def sign(
    url: str, body: bytes, headers: Mapping[str, str], keys: Credentials, *, region: str, service: str, at: str
) -> dict[str, str]:
    """Return the headers of a signed POST: those given, and Host, X-Amz-Date, the session token and Authorization.

    `at` is the time as 20150830T123600Z. The path of `url` stands as it is sent; it is encoded once more for the
    signature, as every service but S3 wants it. The URL has no query.
    """
    parts = urlsplit(url)
    given = {**headers, "Host": parts.netloc, "X-Amz-Date": at}
    if keys.session_token:
        given["X-Amz-Security-Token"] = keys.session_token
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in given.items())
    names = ";".join(name for name, _ in lines)
    path = quote(parts.path or "/", safe="/-_.~")
    canonical = "\n".join(
        ["POST", path, "", *(f"{name}:{value}" for name, value in lines), "", names, hashlib.sha256(body).hexdigest()]
    )
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    proof = f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return given | {"Authorization": proof}
