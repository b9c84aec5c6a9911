"""The whole stack as a user meets it: ``sage llm serve``, then the official client, then ``sage llm stop``."""

import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import openai
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

READY_WITHIN_SECONDS = 8.0


def daemons(sage: Any) -> dict[str, dict[str, Any]]:
    listed = json.loads(sage("llm", "status", "--json", check=False).stdout)
    return {row["name"]: row for row in listed["daemons"]}


def client(sage: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemons(sage)["gateway"]["url"] + "/v1", api_key="none", max_retries=0)


@pytest.mark.spec("X6", "G2", "E9")
def test_serve_answers_the_official_client_and_stops_clean(sage: Any) -> None:
    """Accept 4 and 6: ready in time; stream a chat answer, list the models, embed two texts; nothing left behind."""
    started = time.monotonic()
    served = sage("llm", "serve")
    ready_after = time.monotonic() - started
    assert ready_after <= READY_WITHIN_SECONDS
    assert "demonstration" in served.stdout + served.stderr

    rows = daemons(sage)
    assert {row["state"] for row in rows.values()} == {"ready"}
    with client(sage) as api:
        models = [model.id for model in api.models.list()]
        assert "sage-builtin" in models
        stream = api.chat.completions.create(
            model="sage-builtin",
            messages=[{"role": "user", "content": "Which port does the gateway use?"}],
            stream=True,
            temperature=0,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text.strip()
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert usages
        assert usages[-1].completion_tokens > 0
        vectors = api.embeddings.create(model="hash", input=["Hello", "World"]).data
        assert [len(row.embedding) for row in vectors] == [384, 384]

    again = sage("llm", "serve")
    assert daemons(sage)["engine"]["pid"] == rows["engine"]["pid"], again.stderr
    sage("llm", "stop")
    assert sage("llm", "status", check=False).returncode == 3
    assert sage.processes() == []


@pytest.mark.spec("X10")
def test_chat_and_embed_from_the_shell(sage: Any) -> None:
    sage("llm", "serve")
    assert sage("chat", "What is SAGE?").stdout.strip()
    rows = json.loads(sage("embed", "Hello", "World", "--json").stdout)
    assert len(rows["data"] if isinstance(rows, dict) else rows) == 2
    sage("llm", "stop")
    assert sage("chat", "What is SAGE?", check=False).returncode == 3


@pytest.mark.spec("P2")
def test_two_people_who_serve_at_the_same_moment_both_get_a_stack(sage: Any, tmp_path: pathlib.Path) -> None:
    """Both look for free ports at once and choose the same; who loses a port chooses again."""
    homes = [tmp_path / "one", tmp_path / "two"]
    argv = [str(pathlib.Path(sys.executable).with_name("sage")), "llm"]
    environments = [sage.env | {"SAGE_HOME": str(home)} for home in homes]
    try:
        serving = [
            subprocess.Popen([*argv, "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for env in environments
        ]
        said = [process.communicate(timeout=90)[1] for process in serving]
        assert [process.returncode for process in serving] == [0, 0], said
    finally:
        for env in environments:
            subprocess.run([*argv, "stop"], env=env, capture_output=True, check=True)
