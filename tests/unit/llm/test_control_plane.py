"""The control plane's parts, one by one: classification, admission, choice, embedding in parts, streams."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sage.common.stack import DaemonStatus, StackStatus
from sage.llm.asgi import ApiError
from sage.llm.control_plane import AdmissionQueue, ControlPlaneManager, QueueFull, RequestClassifier, RequestType
from sage.llm.control_plane.executors.embedding_executor import merge, split_inputs
from sage.llm.embedding.payload import decode, texts_of
from sage.llm.gateway.relay import is_complete, split_events

CHAT, GENERATE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


@pytest.mark.spec("G3")
def test_classifier() -> None:
    classify = RequestClassifier().classify
    chat = classify(CHAT, b'{"model": "m", "messages": [], "stream": true}')
    assert (chat.type, chat.model, chat.stream) == (RequestType.LLM_CHAT, "m", True)
    assert classify(GENERATE, b'{"prompt": [1, 2]}').type is RequestType.LLM_GENERATE
    embedding = classify(EMBED, b'{"input": "a", "model": "default"}')
    assert (embedding.type, embedding.type.upstream_kind, embedding.model) == (RequestType.EMBEDDING, "embedding", "")
    for body in (b'{"messages": null}', b"null", b"", b'{"messages": [}'):
        with pytest.raises(ApiError) as refused:
            classify(CHAT, body)
        assert refused.value.status == 400


def test_only_the_model_of_a_body_is_replaced() -> None:
    body = b'{"messages":[{"role":"user","content":"\\u00fc"}],"big":12345678901234567890,"x":1.10}'
    call = RequestClassifier().classify(CHAT, body)
    assert call.body_for("tiny") == body[:-1] + b',"model":"tiny"}'
    named = RequestClassifier().classify(CHAT, b' {"model": "tiny", "messages": [] }')
    assert named.body_for("tiny") is named.body


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.spec("G6")
async def test_admission_is_first_come_first_served_and_bounded() -> None:
    clock = Clock()
    queue = AdmissionQueue(max_running=1, max_waiting=2, clock=clock)
    order: list[int] = []

    async def work(number: int) -> None:
        admitted = await queue.acquire()
        order.append(number)
        queue.release(admitted)

    admitted = await queue.acquire()
    waiting = [asyncio.create_task(work(number)) for number in range(2)]
    await asyncio.sleep(0)
    assert (queue.running, queue.waiting, queue.outstanding) == (1, 2, 3)
    with pytest.raises(QueueFull):
        await queue.acquire()
    queue.release(admitted)
    await asyncio.gather(*waiting)
    assert order == [0, 1]
    assert queue.outstanding == 0


@pytest.mark.spec("G6")
async def test_retry_after_follows_how_long_requests_take() -> None:
    clock = Clock()
    queue = AdmissionQueue(max_running=1, max_waiting=0, clock=clock)
    for _ in range(100):
        admitted = await queue.acquire()
        clock.now += 20
        queue.release(admitted)
    await queue.acquire()
    with pytest.raises(QueueFull) as full:
        await queue.acquire()
    assert full.value.retry_after == 20


@given(st.lists(st.sampled_from(["enter", "leave", "cancel"]), max_size=40))
@example(["enter", "enter", "enter", "cancel", "leave", "enter"])
@example(["enter", "enter", "enter", "enter", "leave", "cancel", "leave"])
def test_places_are_never_lost(steps: list[str]) -> None:
    async def play() -> None:
        queue = AdmissionQueue(max_running=2, max_waiting=3)
        inside: list[float] = []
        tasks: list[asyncio.Task[float]] = []
        for step in steps:
            if step == "enter" and queue.waiting < 3:
                tasks.append(asyncio.create_task(queue.acquire()))
            elif step == "leave" and inside:
                queue.release(inside.pop())
            elif step == "cancel" and tasks:
                tasks.pop().cancel()
            if step != "cancel":
                await asyncio.sleep(0)  # a cancel may meet an admission of the same moment
            inside += [task.result() for task in tasks if task.done() and not task.cancelled()]
            tasks = [task for task in tasks if not task.done()]
            assert queue.running <= 2
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        inside += [one for one in done if isinstance(one, float)]
        for admitted in inside:
            queue.release(admitted)
        await asyncio.sleep(0)
        assert queue.outstanding == 0

    asyncio.run(play())


def stack(*daemons: DaemonStatus, alive: bool = True) -> StackStatus:
    """A stack as daemon.json tells it."""
    return StackStatus(alive, 1 if alive else None, list(daemons))


def daemon(name: str, kind: str = "llm", state: str = "ready", port: int = 1, model: str = "tiny") -> DaemonStatus:
    """A daemon of a stack."""
    return DaemonStatus(name, kind, state, pid=port, port=port, url=f"http://127.0.0.1:{port}", model=model)


@pytest.mark.spec("G3")
async def test_the_manager_follows_the_stack() -> None:
    manager = ControlPlaneManager()
    manager.sync(stack(daemon("gateway", "gateway"), daemon("engine"), daemon("embedding", "embedding", model="hash")))
    assert [(one.name, one.kind) for one in manager.upstreams] == [("engine", "llm"), ("embedding", "embedding")]
    call = RequestClassifier().classify(CHAT, b'{"messages": []}')
    engine = manager.upstreams[0]
    assert manager.choose(call) is engine
    engine.found_well(("tiny",))
    engine.found_down("refused")
    assert manager.choose(call) is None, "the supervisor will have it back"
    manager.sync(stack(daemon("engine", state="backing-off", port=0)))
    assert manager.choose(call) is None
    manager.sync(stack(daemon("engine", state="starting", port=2)))
    assert manager.choose(call) is None
    engine.found_well(())
    assert manager.choose(call) is engine, "our own look was faster than the supervisor's"
    assert engine.models == ("tiny",), "its models are remembered over a restart"
    manager.sync(stack(daemon("engine", state="crash-loop", port=0)))
    with pytest.raises(ApiError) as refused:
        manager.choose(call)
    assert refused.value.status == 503
    assert "crash-loop" in refused.value.message
    manager.sync(stack())
    assert manager.upstreams == []


@pytest.mark.spec("G3")
async def test_nobody_waits_for_an_engine_without_a_supervisor() -> None:
    manager = ControlPlaneManager()
    manager.sync(stack(daemon("engine", state="dead"), alive=False))
    with pytest.raises(ApiError) as refused:
        manager.choose(RequestClassifier().classify(CHAT, b'{"messages": []}'))
    assert refused.value.status == 503


@pytest.mark.spec("G3")
async def test_a_model_may_be_named_as_the_stack_names_it() -> None:
    manager = ControlPlaneManager()
    manager.sync(stack(daemon("engine", model="/models/tiny-llama")))
    engine = manager.upstreams[0]
    engine.found_well(("tiny-llama",))
    call = RequestClassifier().classify(CHAT, b'{"messages": [], "model": "/models/tiny-llama"}')
    assert manager.choose(call) is engine
    assert engine.local_name(call.model) == "tiny-llama"


@pytest.mark.spec("G3")
@given(count=st.integers(1, 40), limit=st.integers(3, 12))
def test_embedding_work_in_parts_is_the_same_work(count: int, limit: int) -> None:
    inputs = [f"text {number}" for number in range(count)]
    body = json.dumps({"model": "m", "input": inputs, "user": "me"}).encode()
    parts = [json.loads(part) for part in split_inputs(body, limit)]
    assert [text for part in parts for text in part["input"]] == inputs
    assert all(len(part["input"]) <= limit and part["user"] == "me" for part in parts)
    answers = [
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": i, "embedding": [text]} for i, text in enumerate(part["input"])],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }
        for part in parts
    ]
    whole = json.loads(merge([json.dumps(answer).encode() for answer in answers]))
    assert [item["embedding"][0] for item in whole["data"]] == inputs
    assert [item["index"] for item in whole["data"]] == list(range(count))
    assert whole["usage"]["total_tokens"] == 2 * len(parts)


def test_more_inputs_than_a_gateway_can_hold_are_refused() -> None:
    assert len(split_inputs(json.dumps({"input": ["a"] * 160}).encode(), 10)) == 16
    with pytest.raises(ApiError, match="161 items; at most 160") as refused:
        split_inputs(json.dumps({"input": ["a"] * 161}).encode(), 10)
    assert (refused.value.status, refused.value.code) == (400, "too_many_inputs")


def test_inputs_that_cannot_be_split_stay_whole() -> None:
    for given_input in ("one text" * 100, list(range(100))):
        body = json.dumps({"input": given_input}).encode()
        assert split_inputs(body, 3) == [body]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_events_are_only_cut_between_events(pieces: list[bytes]) -> None:
    whole = b"".join(b"data: " + piece.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n\n" for piece in pieces)
    sent, rest = b"", b""
    for at in range(0, len(whole), 5):
        events, rest = split_events(rest + whole[at : at + 5])
        assert events == b"" or events.endswith(b"\n\n")
        sent += events
    assert (sent, rest) == (whole, b"")


@pytest.mark.parametrize(
    ("last", "rest", "complete"),
    [
        (b"data: {}\n\ndata: [DONE]\n\n", b"", True),
        (b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n", b"", True),
        (b"data: {}\n\n", b"data: [DONE]", True),
        (b'data: {"error": {"message": "x"}}\n\n', b"", True),
        (b"data: {}\n\n", b"", False),
        (b"data: {}\n\n", b'data: {"choi', False),
        (b'data: {"choices":[{"delta":{"content":"[DONE]"}}]}\n\n', b"", False),
        (b"id: 7\ndata: [DONE]\n\n", b"", True),
        (b'data: {"error":{"message":"the data: none"}}\n\n', b"", True),
    ],
)
def test_how_a_stream_ends(last: bytes, rest: bytes, complete: bool) -> None:
    assert is_complete(last, rest) is complete


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["model", "stream", "messages", "prompt", "input", "encoding_format", "dimensions"])


@pytest.mark.spec("R3")
@given(path=st.sampled_from([CHAT, GENERATE, EMBED]), body=st.dictionaries(FIELDS, JSON) | JSON)
def test_any_json_is_classified_or_refused(path: str, body: object) -> None:
    with contextlib.suppress(ApiError):
        call = RequestClassifier().classify(path, json.dumps(body).encode())
        assert json.loads(call.body_for("tiny"))["model"] == "tiny"


@pytest.mark.spec("R3")
@given(body=st.dictionaries(FIELDS, JSON) | JSON)
def test_any_json_is_embedded_or_refused(body: object) -> None:
    with contextlib.suppress(ApiError):
        assert all(isinstance(text, str) for text in texts_of(decode(json.dumps(body).encode()), 10))
