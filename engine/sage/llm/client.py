"""The one client of SAGE's models: chat, text generation and embeddings through the gateway.

    from sage.llm import UnifiedInferenceClient

    client = UnifiedInferenceClient.create()
    client.chat([{"role": "user", "content": "Hello"}])
    client.embed(["one text", "another"])

httpx is imported with the first request, not with this module.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self

from sage.common.errors import SageError
from sage.llm import client_wire as wire
from sage.llm.client_retries import Attempts

if TYPE_CHECKING:
    import httpx

Messages = wire.Messages
_CONNECT_SECONDS = 5.0


class UnifiedInferenceClient:
    """Chat, generation and embeddings over one gateway, synchronous and asynchronous.

    Every method takes `model=`; without it the client's default applies, and without that the first model that the
    gateway knows. Further keyword arguments (temperature, max_tokens, stop, seed ...) travel to the engine as they are.

    Raises NotRunningError where no gateway or no engine answers, ModelError for an unknown model, UpstreamError for
    everything that the gateway or the engine refuses or breaks off. A request is tried again only while nothing of its
    answer has arrived. With `idempotency_key=` a request carries an `Idempotency-Key` header, by which a server that
    knows it answers a repeated request without doing it twice; texts that go out in several requests get the key with
    the number of the request. `api_key` travels as a bearer token with every request, and is never shown or sent after
    a redirect. Close the client, or use it in a `with` block.
    """

    def __init__(
        self,
        base_url: str,
        *,
        default_llm_model: str | None = None,
        default_embedding_model: str | None = None,
        timeout: float = 60,
        api_key: str | None = None,
    ) -> None:
        self.base_url = base_url
        self.default_llm_model = default_llm_model
        self.default_embedding_model = default_embedding_model
        self.timeout = timeout
        self._api_key = api_key
        self._lock = threading.Lock()
        self._sync: httpx.Client | None = None
        self._async: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    @classmethod
    def create(
        cls,
        control_plane_url: str | None = None,
        default_llm_model: str | None = None,
        default_embedding_model: str | None = None,
        timeout: float = 60,
        api_key: str | None = None,
    ) -> Self:
        """Return a client. Nothing is sent yet.

        The gateway is the argument's (with or without /v1), else that of SAGE_UNIFIED_BASE_URL, the project's
        configuration, the running stack, or the default port. `timeout` is in seconds, for each wait inside a request.
        """
        return cls(
            wire.resolve_base_url(control_plane_url),
            default_llm_model=default_llm_model,
            default_embedding_model=default_embedding_model,
            timeout=timeout,
            api_key=api_key,
        )

    @classmethod
    def create_for_model(
        cls, model: str, control_plane_url: str | None = None, timeout: float = 60, api_key: str | None = None
    ) -> Self:
        """Return a client whose chat and generation use one model."""
        return cls.create(control_plane_url, default_llm_model=model, timeout=timeout, api_key=api_key)

    # -- synchronous ------------------------------------------------------------------------------------------------

    def chat(
        self, messages: Messages, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> str:
        """Return the model's answer to messages (or to one question given as a string)."""
        payload = wire.chat_payload(messages, model or self.default_llm_model, parameters, stream=False)
        return wire.read_chat(self._post("/chat/completions", payload, idempotency_key))

    def generate(
        self, prompt: str, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> str:
        """Return the model's continuation of a prompt."""
        payload = wire.generate_payload(prompt, model or self.default_llm_model, parameters, stream=False)
        return wire.read_generate(self._post("/completions", payload, idempotency_key))

    def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, idempotency_key: str | None = None
    ) -> list[list[float]]:
        """Return one vector a text, in order; any number of texts. One string counts as a list of one."""
        payloads = wire.embed_payloads(texts, model or self.default_embedding_model)
        vectors: list[list[float]] = []
        for payload, key in zip(payloads, wire.part_keys(idempotency_key, len(payloads)), strict=True):
            vectors += wire.read_vectors(self._post("/embeddings", payload, key), len(payload["input"]))
        return vectors

    def stream_chat(
        self, messages: Messages, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> Iterator[str]:
        """Yield the pieces of the model's answer as they come; closing the iterator stops the engine's work."""
        payload = wire.chat_payload(messages, model or self.default_llm_model, parameters, stream=True)
        return self._stream("/chat/completions", payload, idempotency_key, chat=True)

    def stream_generate(
        self, prompt: str, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> Iterator[str]:
        """Yield the pieces of the model's continuation as they come."""
        payload = wire.generate_payload(prompt, model or self.default_llm_model, parameters, stream=True)
        return self._stream("/completions", payload, idempotency_key, chat=False)

    def get_status(self) -> dict[str, Any]:
        """Return what can be used now; never raises because something is down.

        Keys: llm_available, embedding_available, gateway_available, models (ids), engines, base_url, error, hint.
        """
        try:
            models = wire.model_ids(self._get("/v1/models"))
        except SageError as error:
            return wire.absent_status(self.base_url, error)
        try:
            return wire.read_status(self.base_url, self._get("/health"), models)
        except SageError:
            return wire.read_status(self.base_url, None, models)

    def close(self) -> None:
        """Close the synchronous connections."""
        with self._lock:
            client, self._sync = self._sync, None
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- asynchronous -----------------------------------------------------------------------------------------------

    async def achat(
        self, messages: Messages, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> str:
        """Do what `chat` does."""
        payload = wire.chat_payload(messages, model or self.default_llm_model, parameters, stream=False)
        return wire.read_chat(await self._apost("/chat/completions", payload, idempotency_key))

    async def agenerate(
        self, prompt: str, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> str:
        """Do what `generate` does."""
        payload = wire.generate_payload(prompt, model or self.default_llm_model, parameters, stream=False)
        return wire.read_generate(await self._apost("/completions", payload, idempotency_key))

    async def aembed(
        self, texts: str | Sequence[str], *, model: str | None = None, idempotency_key: str | None = None
    ) -> list[list[float]]:
        """Do what `embed` does."""
        payloads = wire.embed_payloads(texts, model or self.default_embedding_model)
        vectors: list[list[float]] = []
        for payload, key in zip(payloads, wire.part_keys(idempotency_key, len(payloads)), strict=True):
            vectors += wire.read_vectors(await self._apost("/embeddings", payload, key), len(payload["input"]))
        return vectors

    def astream_chat(
        self, messages: Messages, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> AsyncIterator[str]:
        """Do what `stream_chat` does."""
        payload = wire.chat_payload(messages, model or self.default_llm_model, parameters, stream=True)
        return self._astream("/chat/completions", payload, idempotency_key, chat=True)

    def astream_generate(
        self, prompt: str, *, model: str | None = None, idempotency_key: str | None = None, **parameters: Any
    ) -> AsyncIterator[str]:
        """Do what `stream_generate` does."""
        payload = wire.generate_payload(prompt, model or self.default_llm_model, parameters, stream=True)
        return self._astream("/completions", payload, idempotency_key, chat=False)

    async def aget_status(self) -> dict[str, Any]:
        """Do what `get_status` does."""
        return await asyncio.to_thread(self.get_status)

    async def aclose(self) -> None:
        """Close the asynchronous connections, and the synchronous ones."""
        known, self._async = self._async, None
        if known is not None:
            await known[1].aclose()
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # -- transport --------------------------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        """Return the options of an httpx client: no TLS set-up and no proxy where none is needed."""
        import httpx

        local = httpx.URL(self.base_url).host in ("localhost", "127.0.0.1", "::1")
        return {
            "timeout": httpx.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout)),
            "verify": self.base_url.startswith("https"),
            "trust_env": not local,
            "headers": {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
        }

    def _client(self) -> httpx.Client:
        """Return the synchronous httpx client."""
        with self._lock:
            if self._sync is None:
                import httpx

                self._sync = httpx.Client(**self._options())
            return self._sync

    def _aclient(self) -> httpx.AsyncClient:
        """Return the httpx client of the running loop; connections cannot outlive the loop that opened them."""
        loop = asyncio.get_running_loop()
        if self._async is None or self._async[0] is not loop:
            import httpx

            self._async = (loop, httpx.AsyncClient(**self._options()))
        return self._async[1]

    def _get(self, path: str) -> dict[str, Any]:
        """Return the JSON object of a GET on the gateway's root."""
        import httpx

        try:
            response = self._client().get(self.base_url.removesuffix("/v1") + path)
        except httpx.TransportError as error:
            raise wire.transport_error(error, self.base_url, self.timeout) from error
        return wire.json_of(response)

    def _post(self, path: str, payload: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Return the JSON object of an answer."""
        with self._send(path, payload, key) as response:
            response.read()
            return wire.json_of(response)

    async def _apost(self, path: str, payload: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Return the JSON object of an answer."""
        async with self._asend(path, payload, key) as response:
            await response.aread()
            return wire.json_of(response)

    def _stream(self, path: str, payload: dict[str, Any], key: str | None, *, chat: bool) -> Iterator[str]:
        """Yield the pieces of a streamed answer."""
        with self._send(path, payload, key) as response:
            yield from wire.deltas(response.iter_lines(), chat=chat)

    async def _astream(self, path: str, payload: dict[str, Any], key: str | None, *, chat: bool) -> AsyncIterator[str]:
        """Yield the pieces of a streamed answer."""
        async with self._asend(path, payload, key) as response:
            async for line in response.aiter_lines():
                piece = wire.read_event(line, chat=chat)
                if piece is None:
                    return
                if piece:
                    yield piece
        raise wire.broken_stream()

    @contextmanager
    def _send(self, path: str, payload: dict[str, Any], key: str | None = None) -> Iterator[httpx.Response]:
        """Give an answer whose body is still to be read.

        Refusals and failures are tried again where that is safe and likely to help, or raised.
        """
        import httpx

        client, attempts, begun = self._client(), Attempts(self.base_url), False
        while True:
            try:
                with client.stream(
                    "POST", self.base_url + path, json=payload, headers=wire.key_header(key)
                ) as response:
                    if response.status_code < 400:
                        begun = True
                        yield response
                        return
                    pause = attempts.after_refusal(response, response.read())
                    if pause is None:
                        raise wire.error_of(response)
            except httpx.TransportError as error:
                pause = None if begun else attempts.after_failure(error)
                if pause is None:
                    raise wire.transport_error(error, self.base_url, self.timeout) from error
            time.sleep(pause)

    @asynccontextmanager
    async def _asend(self, path: str, payload: dict[str, Any], key: str | None = None) -> AsyncIterator[httpx.Response]:
        """Do what `_send` does."""
        import httpx

        client, attempts, begun = self._aclient(), Attempts(self.base_url), False
        while True:
            try:
                async with client.stream(
                    "POST", self.base_url + path, json=payload, headers=wire.key_header(key)
                ) as response:
                    if response.status_code < 400:
                        begun = True
                        yield response
                        return
                    pause = attempts.after_refusal(response, await response.aread())
                    if pause is None:
                        raise wire.error_of(response)
            except httpx.TransportError as error:
                pause = None if begun else attempts.after_failure(error)
                if pause is None:
                    raise wire.transport_error(error, self.base_url, self.timeout) from error
            await asyncio.sleep(pause)
