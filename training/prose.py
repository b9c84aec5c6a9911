"""Reading running prose: several facts about one thing, told with pronouns and joined sentences, asked in other words.

The harder sibling of ``context_tasks``: questions use synonyms, shortened names and pronouns.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

from training import synonyms, words
from training.context_tasks import framed, records
from training.draw import Draw
from training.everyday import MORE_ENTITIES, MORE_VALUES
from training.example import UNKNOWN, Example, dialogue
from training.filler import filler, heading, join
from training.relations import Record, Relation, capital, load_relations, question, random_record, statement, topic
from training.rephrase import situation
from training.wording import ask, lower_first, sloppy

OPEN_ENDED = frozenset({"deed", "definition", "clause", "list", "state"})
PREFIXES = (
    "In most cases, ", "After the installation, ", "On a fresh machine, ", "As a rule, ", "For [now|most users], ",
    "Today ",
    "Since [last year|May|then], ", "In practice, ", "Note that ", "Remember: ", "By the way, ", "At first, ",
    "Of course ",
    "For this purpose, ", "As before, ", "Luckily, ", "In short, ", "Behind the scenes, ", "On every start, ", "Thus ",
)  # fmt: skip
LEADING = frozenset(
    [
        "The",
        "It",
        "Its",
        "She",
        "He",
        "Her",
        "His",
        "To",
        "You",
        "By",
        "As",
        "If",
        "In",
        "On",
        "For",
        "When",
        "With",
        "At",
        "Every",
        "A",
        "An",
        "There",
        "Run",
        "Use",
        "Set",
        "They",
    ]
)
SUFFIXES = (
    ", which is [enough|fine|plenty] for [most users|a test|small jobs]", ", so that {n} {s} {o}", " (see {o})",
    ", because {n} is {j}",
    " before you {b} {o}", ", and {n} {s} {o}", ", but {n} is {j}", ", even if {n} is {j}", ", unless {n} {s} {o}",
    " [as well|too|again|these days]", ", as {n} does", "; {n} {s} {o}", " - {n} is {j}", ", while {n} {s} {o}",
    " when {n} is {j}",
)  # fmt: skip


@cache
def more_relations() -> tuple[Relation, ...]:
    """The relations of ``relations_more.toml``."""
    rows = tomllib.loads(Path(__file__).with_name("relations_more.toml").read_text(encoding="utf-8"))["relation"]
    return tuple(
        Relation(
            row["name"], row["weight"], tuple(row["values"]), tuple(row["entities"]), tuple(row["say"]),
            tuple(row["ask"]), tuple(row["topics"]),
        )
        for row in rows
    )  # fmt: skip


@cache
def _more_weighted() -> tuple[Relation, ...]:
    return tuple(relation for relation in more_relations() for _ in range(relation.weight))


def more_record(draw: Draw, entity: str = "", kind: str = "") -> Record:
    """A random fact of the further relations, perhaps about a given entity of a given kind."""
    options = [r for r in _more_weighted() if kind in r.entities] if entity else _more_weighted()
    relation = draw.pick(options)
    entity_kind = draw.pick(relation.entities)
    value_kind = draw.pick(relation.values)
    value = MORE_VALUES[value_kind](draw)
    if entity_kind == "action":
        return replace(random_record(draw, _action_relation()), relation=relation, kind=value_kind, value=value)
    slots = (("e", entity or MORE_ENTITIES[entity_kind](draw)),)
    return Record(relation, slots, value_kind, value)


@cache
def _action_relation() -> Relation:
    return next(relation for relation in load_relations() if relation.name == "command")


def about(draw: Draw, entity: str, kind: str) -> Record:
    """A fact about a given service, thing or person."""
    if draw.chance(0.35) and kind != "person":
        return more_record(draw, entity, kind)
    options = [relation for relation in load_relations() if kind in relation.entities and relation.name != "event"]
    record = random_record(draw, draw.pick(options))
    return replace(record, slots=tuple((slot, entity if slot == "e" else text) for slot, text in record.slots))


def group(draw: Draw) -> list[Record]:
    """One to four facts; several are about one entity."""
    if draw.chance(0.5):
        return [more_record(draw)] if draw.chance(0.55) else records(draw, draw.number(1, 2))
    kind = draw.pick(("service", "thing", "service", "person"))
    entity = MORE_ENTITIES[kind](draw)
    found = {record.key: record for record in (about(draw, entity, kind) for _ in range(draw.number(1, 4)))}
    return list(found.values())


def with_pronoun(draw: Draw, text: str, record: Record) -> str:
    """The statement with its entity replaced by a pronoun where it leads the sentence or ends a phrase."""
    entity = dict(record.slots).get("e", "")
    person = "person" in record.relation.entities and entity[:1].isupper()
    noun = entity.split()[-1].strip("`")
    subject = draw.pick(("She", "He")) if person else draw.pick(("It", "It", f"The {noun}" if noun.islower() else "It"))
    owner = {"She": "Her", "He": "His", "It": "Its"}.get(subject, f"{subject}'s")
    lead = capital(entity)
    if text.startswith(f"{lead}'s "):
        return owner + text[len(lead) + 2 :]
    if text.startswith(f"{lead} "):
        return subject + text[len(lead) :]
    return text.replace(f" of {entity}", "") if f" of {entity} is " in text else text


def decorated(draw: Draw, text: str, record: Record) -> str:
    """The statement with a clause before or after it, now and then."""
    if not text.endswith(".") or "\n" in text or not draw.chance(0.35):
        return text
    if draw.chance(0.4) or record.kind in OPEN_ENDED:
        small = text.split(" ")[0] in LEADING
        return draw.expand(draw.pick(PREFIXES)) + (lower_first(text) if small else text)
    base, third, _, _ = draw.pick(words.VERBS)
    noun = f"the {draw.pick(words.SERVICES + words.THINGS)}"
    suffix = draw.expand(draw.pick(SUFFIXES)).format(
        n=noun,
        s=third.replace("-", " "),
        b=base.replace("-", " "),
        o=draw.pick(words.OBJECTS),
        j=draw.pick(words.ADJECTIVES),
    )
    return f"{text[:-1]}{suffix}."


def paragraph(draw: Draw, facts: list[Record], limit: int) -> str:
    """The facts of one group as running text."""
    shared = len({dict(record.slots).get("e", "") for record in facts}) == 1 and "e" in dict(facts[0].slots)
    parts: list[str] = []
    titled = shared and draw.chance(0.25)
    if titled:
        parts.append(f"{draw.pick(('# ', '## ', '### '))}{capital(dict(facts[0].slots)['e'])}\n\n")
    for index, record in enumerate(facts):
        text = statement(draw, record)
        if shared and (index or titled) and draw.chance(0.75):
            text = with_pronoun(draw, text, record)
        text = decorated(draw, text, record)
        joined = index and draw.chance(0.3) and parts[-1].endswith(".") and text[:3] in ("It ", "She", "He ")
        if joined:
            parts[-1] = (
                parts[-1][:-1] + draw.pick((" and ", "; it ", ", and it ", " and also ")) + text.partition(" ")[2]
            )
        else:
            parts.append(text)
    if sum(map(len, parts)) < limit and draw.chance(0.7):
        parts.insert(draw.number(0, 1) * len(parts), filler(draw))
    if not titled and draw.chance(0.2):
        parts.insert(0, heading(draw) + "\n")
    return join(draw, parts)


def passage(draw: Draw, groups: list[list[Record]], limit: int) -> str:
    """All groups, mostly as the retriever's numbered chunks."""
    texts = [paragraph(draw, facts, limit) for facts in groups]
    while sum(map(len, texts)) < limit and draw.chance(0.6):
        texts.insert(draw.number(0, len(texts)), " ".join(filler(draw) for _ in range(draw.number(1, 3))))
    if draw.chance(0.7):
        return "\n".join(f"[{i}] {text}" for i, text in enumerate(texts, 1))
    return draw.pick((" ", "\n", "\n\n")).join(texts)


def short_name(draw: Draw, entity: str, everything: str) -> str:
    """A part of the entity's name that stands for it alone in the text, or the whole name."""
    parts = entity.strip("`").split(" ")
    if len(parts) < 2:
        return entity
    noun = parts[-1]
    options = [parts[-1] if noun[:1].isupper() else f"the {noun}", parts[-2] if parts[-2][:1].isupper() else entity]
    choice = draw.pick(options)
    core = choice.removeprefix("the ")
    return choice if everything.count(core) == everything.count(entity) and core else entity


def reworded(draw: Draw, record: Record, everything: str, alone: bool) -> Record:
    """The record as a question may call it: synonyms, a shorter name, "it" where only one thing is spoken of."""
    slots = dict(record.slots)
    if "base" in slots and everything.count(slots["o"]) <= 1 and draw.chance(0.4):
        forms = synonyms.other_verb(draw, slots["base"])
        if forms is not None:
            slots.update(zip(("base", "s", "ing", "pp"), forms, strict=True))
    if "a" in slots and draw.chance(0.4):
        other = synonyms.other_attribute(draw, slots["a"])
        slots["a"] = other if other and other not in everything else slots["a"]
    if "e" in slots and alone and draw.chance(0.3):
        slots["e"] = "it"
    elif "e" in slots and draw.chance(0.25):
        slots["e"] = short_name(draw, slots["e"], everything)
    return replace(record, slots=tuple(slots.items()))


def absent(draw: Draw, known: list[Record], everything: str, near: float) -> Record:
    """A fact that the passage does not tell; ``near`` is the share of those close to what it tells."""
    names = {record.relation.name for record in known}
    for _ in range(30):
        roll = draw.rng.random()
        basic = [record for record in known if record.relation in load_relations()]
        like = draw.pick(basic) if basic and roll < 0.3 + 0.5 * near else None
        record = more_record(draw) if roll < 0.3 else random_record(draw, like=like)
        base = draw.pick(known)
        if (
            roll > 1 - near / 2.4
            and "e" in dict(base.slots)
            and base.relation.entities[0] in ("service", "thing", "person")
        ):
            record = about(draw, dict(base.slots)["e"], base.relation.entities[0])
        slots = dict(record.slots)
        if "o" in slots:
            if slots["o"] not in everything:
                return record
        elif "a" in slots:
            if slots["a"] not in everything or slots["e"] not in everything:
                return record
        elif slots["e"] not in everything or record.relation.name in DISTINCT - names:
            return record
    return random_record(draw, _action_relation())


DISTINCT = frozenset(
    {
        "port",
        "cost",
        "when",
        "lives",
        "count",
        "led-by",
        "licence",
        "protocol",
        "written-in",
        "frequency",
        "duration",
        "code-meaning",
        "bring",
    }
)


def prose_example(draw: Draw, groups: int, turns: int, limit: int, unknown: float, near: float = 0.6) -> Example:
    """A passage of so many groups of facts and so many questions; a share ``unknown`` has no answer there."""
    found = [group(draw) for _ in range(groups)]
    known = list({record.key: record for facts in found for record in facts}.values())
    context = passage(draw, found, limit)
    entities = {dict(record.slots).get("e", "-") for record in known}
    left = [record for record in known if record.value.rstrip(".") in context]
    pairs: list[tuple[str, str]] = []
    for turn in range(turns):
        if turn and not left and not unknown:
            break
        if draw.chance(unknown) or not left:
            pairs.append((_asked(draw, absent(draw, known, context, near)), UNKNOWN))
        else:
            record = left.pop(draw.number(0, len(left) - 1))
            pairs.append((_asked(draw, reworded(draw, record, context, alone=len(entities) == 1)), record.value))
    system, first = framed(draw, context, pairs[0][0])
    return dialogue("prose", [(first, pairs[0][1]), *pairs[1:]], system)


def _asked(draw: Draw, record: Record) -> str:
    if draw.chance(0.1):
        return sloppy(draw, situation(draw, topic(draw, record)))
    return ask(draw, question(draw, record), topic(draw, record))
