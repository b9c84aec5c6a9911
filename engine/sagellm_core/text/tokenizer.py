"""Text to token ids and back, through the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Tokenizer

from sagellm_core.errors import ModelLoadError
from sagellm_core.models.config import read_json

LONG_TEXT = 4096
"""Characters from which encoding takes long enough to be done beside other work, on a thread without the GIL."""

_PIECE = 65_536


class Tokenizer:
    """A folder's tokenizer.json with what tokenizer_config.json adds: end-of-text token and chat template.

    Thread-safe; encoding a long text releases the GIL.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = _Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise ModelLoadError(f"Cannot read {folder / 'tokenizer.json'}", cause=str(error)) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        path = folder / "tokenizer_config.json"
        config = read_json(path) if path.is_file() else {}
        self.special_tokens = {
            name: _content(config[name]) for name in ("bos_token", "eos_token", "unk_token") if config.get(name)
        }
        self.chat_template = _chat_template(folder, config)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def eos_token_id(self) -> int | None:
        token = self.special_tokens.get("eos_token")
        return None if token is None else self._tokenizer.token_to_id(token)

    def to_json(self) -> str:
        """The whole tokenizer, without padding and truncation, in the format of tokenizer.json."""
        return self._tokenizer.to_str()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if len(text) < LONG_TEXT:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        # Only the batch call lets go of the GIL: a megabyte would stop every other thread for seconds.
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def exceeds(self, text: str, limit: int) -> bool:
        """Whether a text is far too long for `limit` tokens (more than twice as many), told without reading it all.

        Counts piece by piece; where pieces meet a word may be cut into a few more tokens, which the factor covers.
        """
        if len(text) <= _PIECE:
            return False
        count = 0
        for start in range(0, len(text), _PIECE):
            count += len(self.encode(text[start : start + _PIECE], add_special_tokens=False))
            if count > 2 * limit:
                return True
        return False

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The text of one token, as log-probabilities show it."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template in its own file, or in the configuration (one, or a list of named ones: "default")."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None
