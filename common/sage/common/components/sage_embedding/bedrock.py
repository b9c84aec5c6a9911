"""The `bedrock` method: Titan and Cohere embeddings on AWS, by a Bedrock API key or by signed requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sage.common.components.sage_embedding.providers import PROVIDERS
from sage.common.components.sage_embedding.remote import RemoteEmbedding, key_of_environment
from sage.common.components.sage_embedding.sigv4 import Credentials, find_credentials, find_region, sign
from sage.common.errors import ConfigError

_AMAZON = ".amazonaws.com"


class BedrockEmbedding(RemoteEmbedding):
    """Vectors from Amazon Bedrock's InvokeModel.

    The key is `api_key` (a Bedrock API key), else `aws_access_key_id` and `aws_secret_access_key`, else
    AWS_BEARER_TOKEN_BEDROCK, else AWS's variables and files. Keys that were not given as arguments go to addresses of
    amazonaws.com only.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        base_url: str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        aws_session_token: str = "",
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        self._region = region or find_region()
        if not self._region:
            raise ConfigError(
                "The embedding method 'bedrock' needs a region",
                cause="Neither region nor AWS_REGION nor AWS_DEFAULT_REGION is set.",
                hint="export AWS_REGION=us-east-1   or   region=...",
            )
        self._clock = clock
        self._aws: Credentials | None = None
        if aws_access_key_id and aws_secret_access_key:
            self._aws = Credentials(aws_access_key_id, aws_secret_access_key, aws_session_token)
        super().__init__(
            "bedrock", base_url=base_url or PROVIDERS["bedrock"].base_url.format(region=self._region), **options
        )
        if self._call.parameters and "cohere." not in self._call.model:
            raise ConfigError(
                f"{self._call.model} takes neither input_type nor truncate",
                hint='model="cohere.embed-multilingual-v3"',
            )

    def get_model_info(self) -> dict[str, Any]:
        """Return method, model, dimension, base_url and region."""
        return super().get_model_info() | {"region": self._region}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the AWS keys behind too."""
        return super().__getstate__() | {"_aws": None}

    def _limit(self) -> int:
        """Return 1 for Titan, whose request holds one text; 96 for Cohere."""
        return self._provider.batch if "cohere." in self._call.model else 1

    def _find_key(self, api_key: str | None) -> str:
        """Return the Bedrock API key, empty where requests are signed; raises ConfigError where there are no keys."""
        if api_key is not None and api_key.strip():
            return api_key.strip()
        if self._aws is not None:
            return ""
        host = self._base_url.removeprefix("https://").partition("/")[0]
        if self._base_url.startswith("https://") and host.endswith((_AMAZON, _AMAZON + ".cn")):
            key = key_of_environment(self._provider)
            self._aws = None if key else find_credentials()
            if key or self._aws is not None:
                return key
        raise ConfigError(
            "The embedding method 'bedrock' needs keys of AWS",
            cause="There is no api_key, AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or "
            "profile in the credentials file that may be sent to this address.",
            hint="export AWS_BEARER_TOKEN_BEDROCK=...   or   api_key=...   or   aws configure",
            details={"missing": "key"},
        )

    def _headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers of one attempt, signed at this moment unless there is an API key."""
        headers = super()._headers(url, body)
        if self._aws is None:
            return headers
        at = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y%m%dT%H%M%SZ")
        return sign(url, body, headers, self._aws, region=self._region, service="bedrock", at=at)
