"""Invented names, values and entities: the raw material of random facts."""

from __future__ import annotations

from collections.abc import Callable

from training import words
from training.draw import Draw

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip


def stem(draw: Draw) -> str:
    """An invented lower-case word of two or three syllables."""

    def make() -> str:
        count = 3 if draw.chance(0.2) else 2
        parts = [draw.pick(words.ONSETS) + draw.pick(words.VOWELS) for _ in range(count)]
        return "".join(parts) + draw.pick(words.CODAS)

    return draw.invent(make)


def name(draw: Draw) -> str:
    """An invented capitalised name."""
    return stem(draw).capitalize()


def person(draw: Draw) -> str:
    """A person's name: a known first name or an invented one, mostly with an invented last name."""
    first = draw.pick(words.FIRST_NAMES) if draw.chance(0.6) else name(draw)
    return f"{first} {name(draw)}" if draw.chance(0.75) else name(draw)


def place(draw: Draw) -> str:
    """A city, known or invented."""
    return draw.pick(words.CITIES) if draw.chance(0.3) else name(draw)


def integer(draw: Draw) -> str:
    """A whole number of one to five digits."""
    return draw.invent(lambda: str(draw.number(0, 10 ** draw.number(1, 5) - 1)))


def port(draw: Draw) -> str:
    """A port number."""
    return draw.invent(lambda: str(draw.number(1000, 9999) if draw.chance(0.8) else draw.number(10000, 65535)))


def duration(draw: Draw) -> str:
    """A length of time, such as "30 seconds"."""
    unit = draw.pick(("seconds", "minutes", "hours", "days", "weeks", "milliseconds", "ms", "s", "years", "months"))
    return f"{draw.number(2, 99) if draw.chance(0.8) else draw.number(100, 900)} {unit}"


def size(draw: Draw) -> str:
    """An amount of memory, such as "512 MB"."""
    return f"{draw.number(1, 999)} {draw.pick(('MB', 'GB', 'KB', 'TB', 'bytes', 'tokens', 'pages'))}"


def version(draw: Draw) -> str:
    """A version, alone or with a product's name."""
    text = ".".join(str(draw.number(0, 20)) for _ in range(draw.number(2, 3)))
    if draw.chance(0.2):
        text = f"{draw.pick(words.PRODUCTS)} {text}"
    return f"{text} or newer" if draw.chance(0.15) else text


def date(draw: Draw) -> str:
    """A date in one of four spellings."""
    year, month, day = draw.number(1900, 2035), draw.number(1, 12), draw.number(1, 28)
    return draw.pick((f"{year}-{month:02d}-{day:02d}", f"{day} {MONTHS[month - 1]} {year}", str(year),
                      f"{MONTHS[month - 1]} {day}", f"{MONTHS[month - 1]} {year}"))  # fmt: skip


def money(draw: Draw) -> str:
    """An amount of money."""
    amount = draw.number(1, 9999)
    return draw.pick((f"{amount} euros", f"{amount} dollars", f"${amount}", f"€{amount}", f"{amount} francs"))


def percent(draw: Draw) -> str:
    """A share in per cent."""
    return f"{draw.number(1, 99)}{draw.pick((' %', '%', ' percent'))}"


def snake(draw: Draw) -> str:
    """An identifier such as ``max_queue_size``."""
    known = draw.pick(words.SERVICES + words.ADJECTIVES + words.PLAIN_WORDS)
    tail = draw.pick(("size", "len", "tokens", "limit", "count", "id", "by", "map", "mode", "name", "path", "stream"))
    parts = [stem(draw) if draw.chance(0.4) else known, tail]
    if draw.chance(0.4):
        parts.insert(0, draw.pick(("max", "min", "num", "default", "enable", "use", "from", "to", "is")))
    return "_".join(parts)


def command(draw: Draw) -> str:
    """A command line of one to four words."""
    tool = (
        stem(draw)
        if draw.chance(0.6)
        else draw.pick(("sage", "make", "git", "sage", "sage llm", "pip", "npm", "docker"))
    )
    parts = [tool]
    if draw.chance(0.85):
        parts.append(verb(draw)[0] if draw.chance(0.6) else stem(draw))
    if draw.chance(0.25):
        parts.append(draw.pick(words.SERVICES) if draw.chance(0.5) else stem(draw))
    if draw.chance(0.3):
        parts.append(flag(draw))
        if draw.chance(0.4):
            parts.append(draw.pick((integer(draw), stem(draw).upper(), stem(draw))))
    return " ".join(parts)


def flag(draw: Draw) -> str:
    """A command-line option."""
    body = draw.pick(words.SERVICES + words.PLAIN_WORDS + words.ADJECTIVES) if draw.chance(0.5) else stem(draw)
    return f"--{draw.pick(('no-', 'with-', 'max-', '', '', ''))}{body}" if draw.chance(0.9) else f"-{body[0]}"


def path(draw: Draw) -> str:
    """A file or folder."""
    folder = draw.pick(words.FOLDERS) if draw.chance(0.6) else stem(draw)
    if draw.chance(0.25):
        return f"{draw.pick(('.', '', '/', '~/'))}{folder}/"
    leaf = draw.pick(words.SERVICES + words.PLAIN_WORDS) if draw.chance(0.4) else stem(draw)
    file = f"{leaf}.{draw.pick(words.SUFFIXES)}"
    return draw.pick((file, f"{folder}/{file}", f"/{folder}/{stem(draw)}/{file}", f".{stem(draw)}/{folder}/{file}"))


def variable(draw: Draw) -> str:
    """An environment variable."""
    head = draw.pick(("SAGE", "APP", "DB", "HF", "LOG")) if draw.chance(0.3) else stem(draw).upper()
    return "_".join([head, *(draw.pick(words.SERVICES + words.ADJECTIVES).upper() for _ in range(draw.number(1, 2)))])


def class_name(draw: Draw) -> str:
    """A class or function name in code."""
    text = name(draw) + "".join(draw.pick(words.SERVICES).capitalize() for _ in range(draw.number(0, 2)))
    return draw.pick((text, text, f"{text}.{verb(draw)[0].replace('-', '_')}()", f"{stem(draw)}.{snake(draw)}"))


def route(draw: Draw) -> str:
    """A URL path."""
    parts = [stem(draw) if draw.chance(0.5) else draw.pick(words.SERVICES) for _ in range(draw.number(1, 2))]
    return "/" + "/".join((["v1", *parts]) if draw.chance(0.4) else parts)


def word(draw: Draw) -> str:
    """A word or two, known or invented, with or without a number."""
    text = stem(draw) if draw.chance(0.6) else draw.pick(words.PLAIN_WORDS)
    return draw.pick((text, text.capitalize(), f"{draw.pick(words.ADJECTIVES)} {text}", f"{text}-{draw.number(1, 99)}"))


def _plain(draw: Draw) -> str:
    return draw.pick(words.PLAIN_WORDS)


def _known_product(draw: Draw) -> str:
    return draw.pick(words.PRODUCTS)


def listing(draw: Draw) -> str:
    """Two to five words joined as a list."""
    make = draw.pick((stem, name, _plain, _known_product))
    parts = [make(draw) for _ in range(draw.number(2, 5))]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def verb(draw: Draw) -> tuple[str, str, str, str]:
    """Base, third person, gerund and participle of a verb."""
    base, third, gerund, participle = draw.pick(words.VERBS)
    return base.replace("-", " "), third.replace("-", " "), gerund.replace("-", " "), participle.replace("-", " ")


def thing_object(draw: Draw) -> str:
    """What a verb acts on: known, or with an adjective or an invented name."""
    roll = draw.rng.random()
    if roll < 0.55:
        return draw.pick(words.OBJECTS)
    if roll < 0.75:
        return f"the {draw.pick(words.ADJECTIVES)} {draw.pick(words.SERVICES + words.THINGS)}"
    return f"the {name(draw)} {draw.pick(words.SERVICES + words.THINGS)}"


def deed(draw: Draw) -> str:
    """A verb phrase in the third person, such as "copies the records into a folder"."""
    text = f"{verb(draw)[1]} {thing_object(draw)}"
    if draw.chance(0.35):
        text += f" and {verb(draw)[1]} {thing_object(draw)}"
    return f"{text} {draw.pick(words.CLAUSE_ENDS)}" if draw.chance(0.3) else text


def definition(draw: Draw) -> str:
    """What something is: "a small tool for sorting the files"."""
    kind = draw.pick(words.SERVICES + words.THINGS + ("tool", "library", "program", "system", "method", "format"))
    head = draw.pick((kind, f"{draw.pick(words.ADJECTIVES)} {kind}"))
    article = "an" if head[0] in "aeiou" else "a"
    form = draw.pick(("for {0}", "that {1}", "made by {2}", "used for {0}", "with {3}", "from {4}"))
    tail = form.format(f"{verb(draw)[2]} {thing_object(draw)}", deed(draw), person(draw), listing(draw), place(draw))
    return f"{article} {head} {tail}"


def consequence(draw: Draw) -> str:
    """A main clause: what happens."""
    actor = draw.pick((f"the {draw.pick(words.SERVICES)}", name(draw), f"the {draw.pick(words.ROLES)}"))
    return draw.pick(
        (f"{actor} {verb(draw)[1]} it", f"{actor} {deed(draw)}", f"{actor} {verb(draw)[1]} {thing_object(draw)}")
    )


def mode(draw: Draw) -> str:
    """A setting's value in words."""
    return draw.pick(words.MODES) if draw.chance(0.7) else stem(draw)


def product(draw: Draw) -> str:
    """A technology's name, known or invented."""
    return draw.pick(words.PRODUCTS) if draw.chance(0.5) else name(draw)


def colour(draw: Draw) -> str:
    """A colour."""
    return draw.pick(words.COLOURS)


VALUES: dict[str, Callable[[Draw], str]] = {
    "port": port, "integer": integer, "duration": duration, "size": size, "version": version, "path": path,
    "variable": variable, "person": person, "place": place, "colour": colour, "date": date, "money": money,
    "percent": percent, "mode": mode, "product": product, "route": route, "class": class_name, "command": command,
    "word": word, "list": listing, "flag": flag, "deed": deed, "definition": definition, "clause": consequence,
    "key": snake, "name": name,
}  # fmt: skip
CODE_KINDS = frozenset({"path", "variable", "route", "class", "command", "flag", "key"})


def service(draw: Draw) -> str:
    """A program that runs."""
    noun = draw.pick(words.SERVICES)
    return draw.pick((
        f"the {name(draw)} {noun}", name(draw), f"`{stem(draw)}`", f"the {draw.pick(words.ADJECTIVES)} {noun}",
        f"the {noun}", f"{name(draw)} {noun}", f"the {draw.pick(words.SERVICES)} {noun}", f"`{stem(draw)}-{noun}`",
    ))  # fmt: skip


def thing(draw: Draw) -> str:
    """A thing, a place, a company or a book."""
    noun = draw.pick(words.THINGS)
    return draw.pick((
        f"the {name(draw)} {noun}", f"the {draw.pick(words.ADJECTIVES)} {noun}", f"the {noun} in {place(draw)}",
        name(draw),
        f"{name(draw)} {draw.pick(words.ORGS)}", f"the {draw.pick(words.COLOURS)} {noun}", f"{draw.pick(words.CITIES)}",
    ))  # fmt: skip


def someone(draw: Draw) -> str:
    """A person, by name or by role."""
    role = f"the {draw.pick(words.ROLES)}"
    return person(draw) if draw.chance(0.75) else draw.pick((role, f"{role} of {name(draw)}", f"Dr. {name(draw)}"))


ENTITIES: dict[str, Callable[[Draw], str]] = {"service": service, "thing": thing, "person": someone}
