"""Entities and values of everyday prose: meetings, goods, codes, limits."""

from __future__ import annotations

from collections.abc import Callable

from training import words
from training.draw import Draw
from training.lexicon import ENTITIES, VALUES, name, person, place, stem

MEETINGS = ("meeting", "workshop", "concert", "lunch", "interview", "review", "exam", "lecture", "party", "match",
"call",
            "weekly meeting", "staff meeting", "release", "flight", "next class", "final test", "trip",
            "wedding")  # fmt: skip
THINGS_TO_BRING = ("slides", "cake", "tickets", "keys", "minutes", "invoices", "flowers", "books", "report", "letters",
                   "plates", "tools", "tents", "photos", "contracts", "drawings", "samples", "chairs",
                   "bread")  # fmt: skip
GOODS = ("loaf", "ticket", "bottle", "box", "cup", "pound", "bag", "pair", "piece", "litre", "glass", "bunch")
NAMED = ("database file", "client class", "main function", "default branch", "dog", "ship", "new street", "entry point",
         "config section", "test suite", "old mill", "state file", "first chapter", "team", "band",
         "home page")  # fmt: skip
LIMITED = ("request", "upload", "message", "walk", "visit", "crossing", "download", "session", "test run", "start",
"backup",
           "title", "meal", "lesson", "user name", "file", "course", "drive", "answer", "test")  # fmt: skip
SUBJECTS = ("errors", "error messages", "commands", "settings", "old entries", "log files", "backups", "keys", "rules",
            "messages", "results", "records", "tickets", "apples", "visitors", "letters", "temporary files", "reports",
            "installation steps", "examples", "ports", "prices", "opening hours", "options", "formats",
            "tests")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def code(draw: Draw) -> str:
    """A numbered code, such as "exit code 4"."""
    return f"{draw.pick(('exit code', 'status', 'error', 'code', 'status code', 'signal'))} {draw.number(0, 599)}"


def goods(draw: Draw) -> str:
    """Something sold by the piece."""
    item = draw.pick(words.PLAIN_WORDS)
    whole = draw.pick(words.THINGS)
    return draw.pick(
        (f"a {draw.pick(GOODS)} of {item}", f"a {item}", f"the {name(draw)} {item}", f"a {whole} ticket", item)
    )


def meeting(draw: Draw) -> str:
    """An event, without an article."""
    text = draw.pick(MEETINGS)
    return draw.pick((text, text, f"{text} with {person(draw)}", f"{text} in {place(draw)}", f"{name(draw)} {text}"))


def plural(draw: Draw) -> str:
    """Several things."""
    text = draw.pick(SUBJECTS)
    return draw.pick((text, f"the {text}", f"{draw.pick(words.ADJECTIVES)} {text}", f"the {text} of {name(draw)}"))


def clock(draw: Draw) -> str:
    """A day, a time, or both."""
    hour = draw.number(1, 12)
    time = draw.pick((f"{hour} am", f"{hour} pm", f"{hour}:{draw.number(10, 59)}", f"{hour} o'clock"))
    return draw.pick((draw.pick(DAYS), time, f"{draw.pick(DAYS)} at {time}"))


def room(draw: Draw) -> str:
    """A room."""
    number = draw.number(1, 400)
    return draw.pick(
        (f"room {number}", f"the {draw.pick(words.COLOURS)} room", f"the {draw.pick(words.THINGS)}", f"hall {number}")
    )


def state(draw: Draw) -> str:
    """A clause that says what is the case."""
    noun = draw.pick(words.SERVICES + words.THINGS)
    verb = draw.pick(words.VERBS)[3].replace("-", " ")
    return draw.pick((f"the {noun} {draw.pick(words.EVENTS)}", f"the {noun} could not be {verb}",
    f"the {noun} is {draw.pick(words.ADJECTIVES)}",
                      f"nothing was {verb}", f"the {name(draw)} {noun} was {verb}",
                      f"{stem(draw)} is {draw.pick(words.ADJECTIVES)}"))  # fmt: skip


MORE_VALUES: dict[str, Callable[[Draw], str]] = {**VALUES, "clock": clock, "room": room, "state": state}
MORE_ENTITIES: dict[str, Callable[[Draw], str]] = {
    **ENTITIES,
    "code": code,
    "goods": goods,
    "meeting": meeting,
    "thing_plural": plural,
    "deed_object": lambda draw: f"the {draw.pick(THINGS_TO_BRING)}",
    "named": lambda draw: f"the {draw.pick(NAMED)}",
    "limit": lambda draw: f"{draw.pick(('a', 'the', 'each'))} {draw.pick(LIMITED)}",
}
