"""Settings: which layer wins, and says so."""

import os
from pathlib import Path

import pytest

from sage.common.atomic import write_json
from sage.common.config.dotenv import export_dotenv, parse_dotenv, read_dotenv
from sage.common.config.ports import SagePorts
from sage.common.config.settings import KEYS, Settings
from sage.common.errors import ConfigError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity


def running_stack(home: SageHome, *, alive: bool = True) -> None:
    me = ProcessIdentity.current()._asdict()
    if not alive:
        me["start_ticks"] -= 1
    daemons = {
        "gateway": {"kind": "gateway", "port": 9101, "url": "http://127.0.0.1:9101", "state": "ready", **me},
        "engine": {"kind": "llm", "port": 9102, "url": "u", "model": "sage-builtin", "state": "ready", **me},
    }
    write_json(home.daemon_json, {"version": 1, "supervisor": me, "daemons": daemons})


@pytest.mark.spec("P4")
def test_the_order_of_the_layers(home: SageHome) -> None:
    def load(overrides: dict[str, int] | None = None, **environ: str) -> tuple[object, str]:
        setting = Settings.load(home, home.project, overrides, environ).get("llm.port")
        return setting.value, setting.origin

    assert load() == (SagePorts.LLM_DEFAULT, "default")
    running_stack(home)
    assert load() == (9102, str(home.daemon_json))
    (home.project / "sage.toml").write_text("[llm]\nport = 9003\n")
    assert load() == (9003, str(home.project / "sage.toml"))
    (home.project / ".env").write_text("SAGE_LLM_PORT=9004\n")
    assert load() == (9004, f"{home.project / '.env'} (SAGE_LLM_PORT)")
    assert load(SAGE_LLM_PORT="9005") == (9005, "environment (SAGE_LLM_PORT)")
    assert load({"llm.port": 9006}, SAGE_LLM_PORT="9005") == (9006, "argument")


@pytest.mark.spec("P4")
def test_the_gateway_that_runs_is_the_default_base_url(home: SageHome) -> None:
    settings = Settings.load(home, home.project, environ={})
    assert settings.text("base_url") == f"http://localhost:{SagePorts.GATEWAY_DEFAULT}/v1"
    running_stack(home)
    settings = Settings.load(home, home.project, environ={})
    assert settings.text("base_url") == "http://127.0.0.1:9101/v1"
    assert settings.text("chat.model") == "sage-builtin"


def test_a_stack_that_died_counts_for_nothing(home: SageHome) -> None:
    running_stack(home, alive=False)
    assert Settings.load(home, home.project, environ={}).port("llm.port") == SagePorts.LLM_DEFAULT
    home.daemon_json.write_text("{ damaged")
    assert Settings.load(home, home.project, environ={}).port("llm.port") == SagePorts.LLM_DEFAULT


@pytest.mark.spec("P4")
@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.env)
def test_every_documented_variable_is_read(home: SageHome, key: object) -> None:
    name, env = key[0], key[1]  # type: ignore[index]
    value = "8123" if name.endswith("port") else "something-long-enough"
    setting = Settings.load(home, home.project, environ={env: value}).get(name)
    assert str(setting.value) == value
    assert setting.origin == f"environment ({env})"


def test_an_override_of_none_and_an_empty_variable_are_not_given(home: SageHome) -> None:
    setting = Settings.load(home, home.project, {"llm.port": None}, {"SAGE_LLM_PORT": ""}).get("llm.port")
    assert setting.is_default


@pytest.mark.spec("R4")
def test_secrets_are_masked_on_a_screen(home: SageHome) -> None:
    settings = Settings.load(
        home, home.project, environ={"SAGE_CHAT_API_KEY": "sk-1234567890abcdef", "HF_TOKEN": "hf_x"}
    )
    assert settings.get("chat.api_key").value == "sk-1234567890abcdef"
    assert settings.get("chat.api_key").shown == "sk-…ef"
    assert settings.get("hf.token").shown == "…"
    assert settings.get("embedding.api_key").shown == ""
    assert settings.get("llm.port").shown == str(SagePorts.LLM_DEFAULT)


@pytest.mark.spec("R3")
@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[llm]\nprot = 1", "no setting 'llm.prot'"),
        ("[llm]\nport = true", "must be text or a whole number"),
        ("[llm]\nport = [1]", "must be text or a whole number"),
        ("[llm\nport = 1", "Cannot read"),
    ],
)
def test_a_wrong_project_file_is_a_clear_error(home: SageHome, toml: str, message: str) -> None:
    (home.project / "sage.toml").write_text(toml)
    with pytest.raises(ConfigError, match=message) as caught:
        Settings.load(home, home.project, environ={})
    assert "sage.toml" in f"{caught.value} {caught.value.hint}"


@pytest.mark.spec("P4", "X12")
@pytest.mark.parametrize("port", ["99999", "0", "-1", "8001x", "1.5"])
def test_a_wrong_port_is_told_with_its_place(home: SageHome, port: str) -> None:
    (home.project / "sage.toml").write_text(f'[llm]\nport = "{port}"')
    for environ, place in (({}, "sage.toml"), ({"SAGE_LLM_PORT": port}, "SAGE_LLM_PORT")):
        with pytest.raises(ConfigError, match="is not a port") as caught:
            Settings.load(home, home.project, environ=environ).get("llm.port")
        assert place in caught.value.title
        assert place in caught.value.hint


def test_the_nearest_key_is_named(home: SageHome) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(home, home.project, environ={}).get("llm.prot")
    assert caught.value.hint == "Did you mean 'llm.port'?"
    with pytest.raises(ConfigError):
        Settings.load(home, home.project, {"nonsense": 1})


def test_all_settings_can_be_listed(home: SageHome) -> None:
    assert [setting.key for setting in Settings.load(home, home.project, environ={})] == list(KEYS)


def test_dotenv_syntax() -> None:
    text = '\ufeff# c\n\nexport A=1\nB = two words # c\nC=\'a # b\'\nD="x\\n\\"y\\""\nE=\nF=a#b\nG=$HOME\nH="open\n'
    assert parse_dotenv(text) == {
        "A": "1", "B": "two words", "C": "a # b", "D": 'x\n"y"', "E": "", "F": "a#b", "G": "$HOME", "H": "open",
    }  # fmt: skip


def test_a_wrong_dotenv_line_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\.env, line 2 is not NAME=value"):
        parse_dotenv("A=1\nSAGE_LLM_PORT: 8123\n")


def test_lines_for_other_tools_do_no_harm() -> None:
    text = 'CERT="-----BEGIN\nMIIB+/=\n-----END"\n[section]\nif true; then\nB=2\n'
    assert parse_dotenv(text) == {"CERT": "-----BEGIN", "B": "2"}


def test_a_folder_called_dotenv_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert read_dotenv(tmp_path) == {}
    (tmp_path / ".env").rmdir()
    (tmp_path / ".env").write_bytes(b"\xff\xfe\nA=1\n")
    assert read_dotenv(tmp_path) == {"A": "1"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / ".env").chmod(0)
    with pytest.raises(ConfigError, match="Cannot read"):
        read_dotenv(tmp_path)


def test_a_removed_current_directory_is_survived(
    home: SageHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    (home.project / "sage.toml").write_text("[llm]\nport = 9003\n")
    assert Settings.load(home, environ={}).port("llm.port") == 9003


@pytest.mark.spec("P4")
def test_the_environment_is_never_overridden(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=from-file\nHF_ENDPOINT=e\n")
    environ = {"HF_TOKEN": "mine"}
    assert export_dotenv(tmp_path, environ) == ["HF_ENDPOINT"]
    assert environ == {"HF_TOKEN": "mine", "HF_ENDPOINT": "e"}
