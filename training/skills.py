"""Small skills beside reading: echo, sorting, classification, JSON extraction, greetings, unknowable questions."""

from __future__ import annotations

import json

from training import lexicon, wording, words
from training.context_tasks import ask_record
from training.draw import Draw
from training.example import UNKNOWN, Example, dialogue
from training.relations import capital, random_record

GREETINGS = (
    "Hello", "Hi", "Hey", "Good morning", "Good evening", "hello there", "Hi there!", "hey you", "Hello!", "Good day",
    "Greetings", "hiya", "Hi SAGE", "Hello SAGE, how are you?", "How are you?", "hallo", "Yo", "Anyone there?",
    "Good afternoon",
)  # fmt: skip
THANKS = (
    "Thanks",
    "Thank you",
    "Thanks a lot!",
    "thx",
    "Thank you very much.",
    "Great, thanks",
    "Many thanks",
    "cheers",
)
FAREWELLS = ("Bye", "Goodbye", "See you", "bye bye", "Good night", "See you later!", "That was all, bye", "Farewell")
HELLO = "Hello! I am SAGE's built-in model, a small demonstration model. Ask me about SAGE."
WELCOME = "You are welcome."
GOODBYE = "Goodbye!"

WORLD_QUESTIONS = (
    "[What is|Tell me|Name] the [capital|population|flag|president|language] of {place}?",
    "Who wrote the book about {noun}s?",
    "Who invented the {thing}?", "How old is {person}?", "When did the war [begin|end]?",
    "What is {a} [times|plus|minus] {b}?",
    "Write a [poem|story|song] about {place}.", "Translate {word} into [French|German|Chinese].", "What time is it?",
    "What is the weather in {place}?", "How do I cook {word}?", "Who won the [match|election|game]?", "Tell me a joke.",
    "What is the meaning of life?", "How far is the moon?",
    "Which is the [highest|longest|largest] {thing} in the world?",
    "Who is {person}?", "Where is {place}?", "Why is the sky {colour}?", "How many people live in {place}?",
    "Is {word} {adj}?",
    "Write [code|a program|a function] that [sorts|counts] {thing}s.", "Who is the president?", "What is {word}?",
    "What should I eat today?", "Which {thing} is best?", "Recommend a {thing}.", "How much is a {thing}?",
    "What day is it?",
    "Summarise the history of {place}.", "Do you like {word}?", "Who painted the {colour} {thing}?", "Explain {word}.",
)  # fmt: skip

POSITIVE = (
    "good",
    "great",
    "excellent",
    "wonderful",
    "lovely",
    "perfect",
    "amazing",
    "helpful",
    "fantastic",
    "nice",
    "superb",
)
NEGATIVE = (
    "bad",
    "terrible",
    "awful",
    "horrible",
    "poor",
    "broken",
    "useless",
    "annoying",
    "disappointing",
    "ugly",
    "boring",
)
OPINIONS = (
    "The {thing} [was|is] {x}.", "[What a|Such a] {x} {thing}!", "I [found|think] the {thing} {x}.", "{X} {noun}.",
    "It was a {x} {thing} and the {noun} was {x2}.", "My {noun} is {x}, really {x2}.", "{X}, just {x2}.",
    "A {x} day in {place}.",
    "We had a {x} time with the {noun}.", "The {adj} {thing} [felt|looked|turned out] {x}.", "This {noun} is so {x}!",
)  # fmt: skip
CLASSIFY = (
    "[Classify|Label] as positive or negative: {t}", "Is this positive or negative? {t}", "Sentiment: {t}",
    "Positive or negative? {t}", "[What is the sentiment of|Give the sentiment of] this: {t}",
    "{t}\nPositive or negative?",
    "Decide whether the [review|text] is positive or negative: {t}",
    "[Review|Text]: {t}\nSentiment (positive or negative):",
)  # fmt: skip
ECHO = (
    "Repeat: {t}", "Say {t}", "Echo: {t}", "Repeat after me: {t}", "Please say: {t}",
    "[Write|Print|Copy|Return|Output] this: {t}",
    "Copy the following text: {t}", "Repeat the text: {t}", "echo {t}", "Say this back to me: {t}",
    "Just [write|say|repeat]: {t}",
)  # fmt: skip
SORT = (
    "Sort: {t}", "Sort these [numbers|values|items|words]: {t}", "Put in order: {t}",
    "Sort in [ascending|rising] order: {t}",
    "Order these: {t}", "Please sort {t}", "Arrange in order: {t}",
)  # fmt: skip
EXTRACT = (
    "Extract {k} as JSON: {t}", "Give {k} as JSON. {t}", "{t}\nReturn JSON with {k}.",
    "JSON with the [keys|fields] {k}: {t}",
    "From the text extract {k} and answer in JSON.\n{t}", "Turn into JSON ({k}): {t}", "Text: {t}\nJSON with {k}:",
)  # fmt: skip


def greeting(draw: Draw) -> Example:
    """Hello, thanks, goodbye."""
    asked, answer = draw.pick(((GREETINGS, HELLO), (GREETINGS, HELLO), (THANKS, WELCOME), (FAREWELLS, GOODBYE)))
    text = draw.wording(asked)
    if draw.chance(0.5):
        text = text.rstrip("!.") + draw.pick(("", "!", ".", ", SAGE", ", " + draw.pick(words.FIRST_NAMES) + " here"))
    return dialogue("greeting", [(text.lower() if draw.chance(0.4) else text, answer)])


def unknowable(draw: Draw) -> Example:
    """A question without a context that the model cannot know the answer to."""
    pairs = []
    for _ in range(draw.number(1, 3)):
        if draw.chance(0.5):
            text = draw.phrase(WORLD_QUESTIONS).format(
                place=lexicon.place(draw), noun=draw.pick(words.PLAIN_WORDS), thing=draw.pick(words.THINGS),
                person=lexicon.person(draw), a=draw.number(1, 99), b=draw.number(1, 99), word=lexicon.word(draw),
                colour=draw.pick(words.COLOURS), adj=draw.pick(words.ADJECTIVES),
            )  # fmt: skip
            text = wording.sloppy(draw, text)
        else:
            record = random_record(draw)
            while not any(c.isupper() for c in " ".join(text for _, text in record.slots)):
                record = random_record(draw)
            text = ask_record(draw, record)
        pairs.append((text, UNKNOWN))
    return dialogue("unknowable", pairs)


def echo(draw: Draw) -> Example:
    """Say a text back."""
    pairs = []
    for _ in range(draw.number(1, 3)):
        kinds = (
            lexicon.stem, lexicon.name, lexicon.command, lexicon.word, lexicon.integer, lexicon.path,
            lexicon.definition, lexicon.listing, lexicon.date, lexicon.class_name,
        )  # fmt: skip
        text = " ".join(draw.pick(kinds)(draw) for _ in range(draw.number(1, 3)))
        pairs.append((draw.phrase(ECHO).format(t=text), text))
    return dialogue("echo", pairs)


def sort_items(draw: Draw) -> Example:
    """Order a few numbers or words."""
    count = draw.number(3, 5)
    if draw.chance(0.5):
        numbers = draw.rng.sample(range(100), count)
        items, ordered = [str(n) for n in numbers], [str(n) for n in sorted(numbers)]
    else:
        items = draw.rng.sample(words.PLAIN_WORDS, count)
        ordered = sorted(items)
    return dialogue("sort", [(draw.phrase(SORT).format(t=draw.pick((", ", " ")).join(items)), ", ".join(ordered))])


def classify(draw: Draw) -> Example:
    """Positive or negative."""
    pairs = []
    for _ in range(draw.number(1, 3)):
        positive = draw.chance(0.5)
        mood = POSITIVE if positive else NEGATIVE
        x, x2 = draw.pick(mood), draw.pick(mood)
        text = draw.phrase(OPINIONS).format(
            x=x, X=capital(x), x2=x2, thing=draw.pick(words.THINGS), noun=draw.pick(words.SERVICES + words.THINGS),
            place=lexicon.place(draw), adj=draw.pick(words.COLOURS),
        )  # fmt: skip
        pairs.append((draw.phrase(CLASSIFY).format(t=text), "positive" if positive else "negative"))
    return dialogue("classify", pairs)


def extract(draw: Draw) -> Example:
    """Pull named values out of a text into a flat JSON object."""
    kinds = {
        "name": lexicon.person, "port": lexicon.port, "city": lexicon.place, "date": lexicon.date,
        "command": lexicon.command, "price": lexicon.money, "version": lexicon.version, "file": lexicon.path,
        "colour": lexicon.colour,
    }  # fmt: skip
    fields = {key: kinds[key](draw) for key in draw.rng.sample(sorted(kinds), draw.number(2, 4))}
    said = draw.pick(("The {k} is {v}.", "{k}: {v}.", "{v} is the {k}.", "As {k} we have {v}.", "Its {k} is {v}."))
    text = " ".join(capital(said.format(k=key, v=value)) for key, value in fields.items())
    asked = draw.rng.sample(sorted(fields), draw.number(1, len(fields)))
    keys = " and ".join(asked)
    answer = json.dumps({key: fields[key] for key in asked}, ensure_ascii=False)
    return dialogue("json", [(draw.phrase(EXTRACT).format(k=keys, t=text), answer)])
