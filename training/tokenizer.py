"""The tokenizer: byte-level BPE whose cuts make copying learnable.

A space belongs to the next word only where that word is a common lower-case one. Names, rare words, single digits and
punctuation stand alone, so they are cut the same way after a space, a quote, a backtick or a newline. Every text
survives encode and decode unchanged.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.example import Example

PAD, BOS, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)
PAD_ID, BOS_ID, END_ID = 0, 1, 2
ROLE_IDS = {"system": 3, "user": 4, "assistant": 5}
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def common_words(texts: Iterable[str], count: int) -> list[str]:
    """The lower-case words that most often follow a space, alphabetically."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r" ([a-z]+)(?![A-Za-z0-9_/.-])", text))
    return sorted(word for word, _ in counts.most_common(count))


def cut_pattern(common: list[str]) -> str:
    """The regular expression that cuts text before merging."""
    words = "|".join(common)
    return rf" (?:{words})(?![A-Za-z0-9_])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]|\n|[^A-Za-z0-9]"


def train_tokenizer(texts: list[str], vocabulary: int, common: int) -> Tokenizer:
    """Learn the common words and the merges from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(cut_pattern(common_words(texts, common))), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the files that ``AutoTokenizer`` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": END, "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT], "model_max_length": context,
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    special = {
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def encode_examples(tokenizer: Tokenizer, examples: list[Example]) -> list[tuple[list[int], list[bool]]]:
    """Token ids of each example, and for each token whether the model must predict it."""
    texts = [turn.text for example in examples for turn in example.turns]
    encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    result = []
    for example in examples:
        ids, asked = [BOS_ID], [False]
        for turn in example.turns:
            body = next(encoded).ids
            target = turn.role in ("assistant", "text")
            if turn.role != "text":
                ids.append(ROLE_IDS[turn.role])
                asked.append(False)
            ids += [*body, END_ID]
            asked += [target] * (len(body) + 1)
        result.append((ids, asked))
    return result
