"""Random facts: a relation drawn from ``relations.toml`` with an invented entity and value, said and asked.

Knows nothing about layouts or chat turns: see ``context_tasks``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training import lexicon, words
from training.draw import Draw


@dataclass(frozen=True, slots=True)
class Relation:
    """How one kind of fact is said and asked."""

    name: str
    weight: int
    values: tuple[str, ...]
    entities: tuple[str, ...]
    say: tuple[str, ...]
    ask: tuple[str, ...]
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One random fact: what fills the relation's wordings, and its value."""

    relation: Relation
    slots: tuple[tuple[str, str], ...]
    kind: str
    value: str

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for two records that the same question would fit."""
        return (self.relation.name, *(text for _, text in self.slots))


@cache
def load_relations() -> tuple[Relation, ...]:
    """All relations in file order."""
    rows = tomllib.loads(Path(__file__).with_name("relations.toml").read_text(encoding="utf-8"))["relation"]
    return tuple(
        Relation(
            row["name"], row["weight"], tuple(row["values"]), tuple(row["entities"]), tuple(row["say"]),
            tuple(row["ask"]), tuple(row["topics"]),
        )
        for row in rows
    )  # fmt: skip


@cache
def _weighted() -> tuple[Relation, ...]:
    return tuple(relation for relation in load_relations() for _ in range(relation.weight))


def random_relation(draw: Draw) -> Relation:
    """A relation, by weight."""
    return draw.pick(_weighted())


def _action_slots(draw: Draw) -> dict[str, str]:
    base, third, gerund, participle = lexicon.verb(draw)
    return {"base": base, "s": third, "ing": gerund, "pp": participle, "o": lexicon.thing_object(draw)}


def _entity_slots(draw: Draw, kind: str) -> dict[str, str]:
    """Fill every slot but the value for an entity of this kind."""
    if kind == "action":
        return _action_slots(draw)
    if kind == "event":
        return {"e": lexicon.service(draw), "ev": draw.pick(words.EVENTS)}
    if kind == "key":
        return {"e": lexicon.snake(draw)}
    if kind == "role":
        return {"e": f"{draw.pick(words.ROLES)} of {lexicon.thing(draw)}"}
    if kind == "thing_plural":
        noun = draw.pick(words.OBJECTS if draw.chance(0.4) else words.SERVICES + words.THINGS)
        plural = (
            noun if noun.startswith(("the ", "all ")) and noun.endswith("s") else f"the {noun.split()[-1].rstrip('s')}s"
        )
        return {"e": plural if draw.chance(0.5) else f"{plural} of {lexicon.name(draw)}"}
    if kind == "unit":
        units = ("pages", "rooms", "members", "workers", "tokens", "blocks", "users", "wheels", "students", "layers",
                 "files", "tables", "seats", "windows", "dimensions", "books", "messages", "nodes",
                 "records")  # fmt: skip
        return {"e": draw.pick((lexicon.service, lexicon.thing))(draw), "u": draw.pick(units)}
    if kind == "state":
        return {"e": f"{lexicon.service(draw)} {draw.pick(words.EVENTS)}"}
    return {"e": lexicon.ENTITIES[kind](draw)}


def random_record(draw: Draw, relation: Relation | None = None, like: Record | None = None) -> Record:
    """A random fact; ``like`` asks for the same relation and, half the time, a part of the same slots."""
    if like is not None:
        relation = like.relation
    relation = relation or random_relation(draw)
    slots = _entity_slots(draw, draw.pick(relation.entities))
    kind = draw.pick(relation.values)
    if kind == "*":
        kind = draw.pick(tuple(words.ATTRIBUTES))
        slots["a"] = draw.pick(words.ATTRIBUTES[kind])
    if like is not None and draw.chance(0.6):
        kind = _share_slots(draw, slots, like, kind)
    return Record(relation, tuple(slots.items()), kind, lexicon.VALUES[kind](draw))


def _share_slots(draw: Draw, slots: dict[str, str], like: Record, kind: str) -> str:
    """Give ``slots`` a part of another record's, as a near miss; returns the value's kind that fits."""
    other = dict(like.slots)
    if "a" in slots and draw.chance(0.5):
        slots["a"] = other["a"]
        return like.kind
    if "base" in slots:
        shared = ("o",) if draw.chance(0.5) else ("base", "s", "ing", "pp")
        slots.update({slot: other[slot] for slot in shared})
    elif len(slots) > 1 and "e" in other:
        slots["e"] = other["e"]
    return kind


def capital(text: str) -> str:
    """The text with its first letter in upper case, unless it is code."""
    return text[:1].upper() + text[1:]


def _fill(template: str, record: Record, value: str) -> str:
    return template.format(**dict(record.slots), v=value)


def statement(draw: Draw, record: Record) -> str:
    """The fact in a sentence; code-like values mostly stand in backticks."""
    template = draw.phrase(record.relation.say)
    value = record.value
    if record.kind in lexicon.CODE_KINDS and "`{v}" not in template and "\n{v}" not in template and draw.chance(0.6):
        value = f"`{value}`"
    if draw.chance(0.12):
        template = template.replace("`", draw.pick(('"', "'", "")))
    text = _fill(template, record, value)
    return text if text.startswith(record.value) and record.kind in lexicon.CODE_KINDS else capital(text)


def question(draw: Draw, record: Record) -> str:
    """The fact asked, in a whole question."""
    text = _fill(draw.phrase(record.relation.ask), record, "")
    return capital(text.replace("`", "") if draw.chance(0.5) else text)


def topic(draw: Draw, record: Record) -> str:
    """A noun phrase for what the fact tells."""
    text = _fill(draw.phrase(record.relation.topics), record, "")
    return text.replace("`", "") if draw.chance(0.5) else text
