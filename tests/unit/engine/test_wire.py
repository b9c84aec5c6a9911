"""Frames between processes: everything that a plan can hold comes back equal, nonsense is refused."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagellm_core.engine_core.messages import Update
from sagellm_core.engine_core.plan import (
    BatchType,
    Candidates,
    Fork,
    NewSequence,
    SampledToken,
    SchedulerOutput,
    StepOutput,
)
from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_core.executor.messages import Answer, Done, Order, Step, Stop
from sagellm_core.wire import Connection, Fault, decoder, encode
from sagellm_protocol import ErrorCode, SamplingParams
from sagellm_protocol.errors import Error
from sagellm_protocol.sampling import Grammar

NUMBERS = st.lists(st.integers(0, 2**31), max_size=5)
NAMES = st.text(max_size=8)
SAMPLING = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    seed=st.none() | st.integers(0, 2**40),
    stop=st.lists(st.text(min_size=1, max_size=4), max_size=2),
    logit_bias=st.dictionaries(st.integers(0, 99), st.floats(-5, 5), max_size=3),
    grammar=st.none() | st.builds(Grammar, kind=st.just("regex"), text=st.just("[a-z]+")),
)
PLANS = st.builds(
    SchedulerOutput,
    step=st.integers(0, 2**40),
    batch_type=st.sampled_from(BatchType),
    seq_ids=st.lists(NAMES, max_size=3),
    token_ids=NUMBERS,
    positions=NUMBERS,
    slot_mapping=NUMBERS,
    query_lens=NUMBERS,
    context_lens=NUMBERS,
    block_tables=st.lists(NUMBERS, max_size=3),
    samples=st.lists(st.booleans(), max_size=3),
    new=st.lists(st.builds(NewSequence, seq_id=NAMES, prompt=NUMBERS, sampling=SAMPLING, adapter=NAMES), max_size=2),
    finished=st.lists(NAMES, max_size=2),
    copies=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=2),
    forks=st.lists(st.builds(Fork, parent=NAMES, child=NAMES, index=st.integers(0, 9)), max_size=2),
    drafts=st.dictionaries(NAMES, NUMBERS, max_size=2),
    num_drafts=st.integers(0, 9),
)
TOKENS = st.builds(
    SampledToken,
    token_id=st.integers(-1, 2**31),
    logprob=st.none() | st.floats(-50, 0),
    top=st.none() | st.dictionaries(st.integers(0, 99), st.floats(-50, 0), max_size=3),
)
OUTPUTS = st.builds(
    StepOutput,
    step=st.integers(0, 99),
    tokens=st.dictionaries(NAMES, st.lists(TOKENS, max_size=3), max_size=3),
    candidates=st.dictionaries(
        NAMES, st.builds(Candidates, token_ids=NUMBERS, logprobs=st.lists(st.floats(-9, 0), max_size=3)), max_size=2
    ),
    drafts=st.dictionaries(NAMES, NUMBERS, max_size=2),
    vectors=st.dictionaries(NAMES, st.lists(st.floats(-1, 1), max_size=3), max_size=2),
)


@given(plan=PLANS)
@settings(max_examples=60, deadline=None)
def test_a_plan_comes_out_as_it_went_in(plan: SchedulerOutput) -> None:
    order = decoder(Order).decode(encode(Step(plan)))
    assert order == Step(plan)
    assert [new.sampling.model_fields_set for new in order.plan.new] == [
        new.sampling.model_fields_set for new in plan.new
    ]


@given(output=OUTPUTS)
@settings(max_examples=60, deadline=None)
def test_what_a_step_gave_comes_out_as_it_went_in(output: StepOutput) -> None:
    assert decoder(Answer).decode(encode(Done(output, 3, 2, 0.5))) == Done(output, 3, 2, 0.5)


def test_an_update_keeps_its_error() -> None:
    update = Update("a", 1.5, [SampledToken(3)], "x", "error", Error(code=ErrorCode.INTERNAL, message="m"))
    assert decoder(Update).decode(encode(update)) == update


@pytest.mark.parametrize(
    "error",
    [
        EngineError(ErrorCode.RESOURCE_EXHAUSTED, "full", param="prompt", cause="why", hint="wait"),
        ModelLoadError("torn", cause="half a file"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: EngineError) -> None:
    back = decoder(Fault).decode(encode(Fault.of(error))).error()
    assert type(back) is type(error)
    assert (str(back), back.error_code, back.hint, back.param) == (
        str(error),
        error.error_code,
        error.hint,
        error.param,
    )
    assert Fault.of(ZeroDivisionError("x")).error().error_code is ErrorCode.INTERNAL


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    one, other = socket.socketpair()
    pair = Connection(one, Order), Connection(other, Order)
    yield pair
    for each in pair:
        each.close()


def test_frames_keep_their_borders_and_bodies(ends: tuple[Connection, Connection]) -> None:
    here, there = ends
    here.send(Stop(), b"abc")
    here.send(Stop())
    assert there.receive() == (Stop(), bytearray(b"abc"))
    assert there.receive() == (Stop(), bytearray())
    here.close()
    with pytest.raises(EOFError):
        there.receive()


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<IQ", 3, 0) + b"\xc1\xc1\xc1",
        struct.pack("<IQ", 2, 0) + b"\x91\x01",
        struct.pack("<IQ", 1 << 20, 0),
        struct.pack("<IQ", 1, 1 << 62) + b"\xc0",
    ],
    ids=["no msgpack", "no message", "long head", "long body"],
)
def test_nonsense_is_refused_before_memory_is_taken_for_it(frame: bytes, ends: tuple[Connection, Connection]) -> None:
    here, there = ends
    there.limit = 1 << 16
    here.sock.sendall(frame)
    with pytest.raises(ConnectionError, match="not one of ours"):
        there.receive()
