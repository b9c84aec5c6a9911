"""Messages to prompts: the model's template in a sandbox, a plain one without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_core.text.chat_template import ChatTemplate
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_core.text.tools import ToolFormat
from sagellm_protocol.messages import Message

pytestmark = pytest.mark.spec("E8")
HELLO = [Message(role="system", content="Be brief."), Message(role="user", content="Hi")]
WithTemplate = Callable[[object], ChatTemplate]


@pytest.fixture
def template(tiny_llama: Path, tmp_path: Path) -> WithTemplate:
    """The tiny model with another chat template in its tokenizer_config.json."""

    def make(value: object) -> ChatTemplate:
        folder = copytree(tiny_llama, tmp_path / "model", dirs_exist_ok=True)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = value
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return ChatTemplate(Tokenizer(folder))

    return make


def test_the_models_own_template(tiny_llama: Path) -> None:
    rendered = ChatTemplate(Tokenizer(tiny_llama)).render(HELLO)
    assert rendered == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"


def test_without_a_template_roles_are_written_out(template: WithTemplate) -> None:
    plain = template(None)
    assert plain.is_fallback
    assert plain.render(HELLO) == "System: Be brief.\nUser: Hi\nAssistant:"


def test_a_template_in_its_own_file_wins(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_llama, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert ChatTemplate(Tokenizer(folder)).render(HELLO) == "Be brief.!"


def test_variables_reach_the_template_but_not_its_own(template: WithTemplate) -> None:
    source = "{{ style }}{{ messages | length }}{{ add_generation_prompt }}"
    variables = {"style": "brief", "messages": [], "add_generation_prompt": False}
    rendered = template(source).render(HELLO, variables)
    assert rendered == "brief2True"


def test_named_templates_and_special_tokens(template: WithTemplate) -> None:
    named = template([{"name": "tool", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes"}])
    assert named.render(HELLO) == "<|bos|>yes"


def test_text_parts_are_joined_and_others_refused(tiny_llama: Path) -> None:
    template = ChatTemplate(Tokenizer(tiny_llama))
    parts = Message(role="user", content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert "ab<|end|>" in template.render([parts])
    with pytest.raises(EngineError, match="not image_url"):
        template.render([Message(role="user", content=[{"type": "image_url", "image_url": {"url": "x"}}])])


def test_what_a_template_refuses_is_the_callers_fault(template: WithTemplate) -> None:
    with pytest.raises(EngineError, match="roles must alternate") as caught:
        template("{{ raise_exception('roles must alternate') }}").render(HELLO)
    assert caught.value.param == "messages"
    with pytest.raises(EngineError, match="messages is empty"):
        template("x").render([])


@pytest.mark.parametrize(
    "attack",
    ["{{ messages.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{% set _ = messages.append(1) %}"],
)
def test_a_template_cannot_leave_the_sandbox(attack: str, template: WithTemplate) -> None:
    with pytest.raises(EngineError):
        template(attack).render(HELLO)


def test_generation_marks_json_and_loop_controls_work(template: WithTemplate) -> None:
    source = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{% generation %}{{ m | tojson }}"
    rendered = template(source + "{% endgeneration %}{% endfor %}").render(HELLO)
    assert json.loads(rendered) == {"role": "system", "content": "Be brief."}


def test_a_broken_template_is_the_models_fault(template: WithTemplate) -> None:
    with pytest.raises(ModelLoadError, match="chat template"):
        template("{% for %}")


# -- tools -------------------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
TURNS = [
    Message(role="user", content="What time is it?"),
    Message.model_validate({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    Message.model_validate({"role": "tool", "tool_call_id": "c1", "content": "12:00"}),
]
QWEN = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}{% endfor %}"
)


@pytest.mark.spec("E3")
def test_a_template_that_knows_tools_gets_them_and_arguments_as_objects(template: WithTemplate) -> None:
    made = template(QWEN)
    shown = made.render(TURNS, tools=[TOOL])
    assert shown.startswith('{"type": "function", "function": {"name": "time"')
    assert '<tool_call>{"zone": "UTC"}</tool_call>' in shown
    assert "<tool>12:00" in shown
    assert made.tool_format is ToolFormat.HERMES
    assert "function" not in made.render(TURNS[:1])


@pytest.mark.spec("E3")
@pytest.mark.parametrize("first", [[], [Message(role="system", content="Be kind.")]])
def test_a_template_that_knows_no_tools_gets_them_in_the_system_message(
    first: list[Message], template: WithTemplate
) -> None:
    made = template("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}")
    shown = made.render([*first, *TURNS], tools=[TOOL])
    assert shown.startswith("<system>" + ("Be kind." if first else "You can call"))
    assert shown.count("<system>") == 1
    assert '{"name": "time", "parameters"' in shown
    assert '<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n</tool_call>' in shown
    assert "<user><tool_response>\n12:00\n</tool_response>" in shown
    assert "<tool>" not in shown


def test_a_developer_is_the_system_where_the_template_knows_no_developer(template: WithTemplate) -> None:
    turns = [Message(role="developer", content="x")]
    assert template("{{ messages[0].role }}").render(turns) == "system"
    assert template("{# developer #}{{ messages[0].role }}").render(turns) == "developer"


def test_arguments_that_are_no_json_stay_as_they_are(template: WithTemplate) -> None:
    broken = {**CALL, "function": {"name": "time", "arguments": "{oops"}}
    turn = Message.model_validate({"role": "assistant", "content": None, "tool_calls": [broken]})
    assert '"{oops"' in template(QWEN).render([turn])
