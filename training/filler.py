"""Sentences that answer nothing: what stands around a fact in a page."""

from __future__ import annotations

from training import lexicon, words
from training.draw import Draw
from training.relations import capital, random_record, statement

PATTERNS = (
    "This [page|section|chapter] [describes|explains|is about] {o}.", "See also {name}.",
    "Most people {base} {o} first.",
    "It is {adj} and {adj2}.", "You can {base} {o} at any time.", "There is more about {o} below.",
    "Read on to learn more.",
    "Nothing else is needed.", "That is all.", "The next [section|chapter] [shows|tells] how to {base} {o}.",
    "[Sometimes|Often|In most cases] it is better to {base} {o}.", "Do not forget to {base} {o}.",
    "The {adj} {noun} and the {noun2} work together.", "Each {noun} {s} {o}, one after the other.",
    "This was not always so.", "Both ways [work|are fine].", "If in doubt, ask.", "For scripts this matters a lot.",
    "{ing} {o} is [easy|quick|simple|slow|not needed].", "It does not {base} {o}.", "A {noun} may {base} {o} later.",
    "[Everything|All of this] runs on your own machine.", "In a pipe the output is plain.",
    "The rest is [optional|automatic].",
    "They {base} {o} and then {base2} it.", "Once {o} [is|are] {pp}, go on with the next step.", "Here is an example.",
    "The same holds for {o}.", "{name} said that the {noun} is {adj}.", "[Note|Remember] that {o} can be {adj}.",
    "Use this when you {base} {o}.", "Several {noun}s can share one {noun2}.", "The {noun} has no {noun2}.",
)  # fmt: skip
HEADINGS = ("# {T}", "## {T}", "### {T}", "{T}\n", "**{T}**")


def filler(draw: Draw) -> str:
    """A sentence without a fact worth asking; now and then plain word salad."""
    if draw.chance(0.08):
        pool = words.PLAIN_WORDS + words.SERVICES + words.ADJECTIVES
        return capital(" ".join(draw.pick(pool) for _ in range(draw.number(4, 12)))) + "."
    base, third, gerund, participle = lexicon.verb(draw)
    text = draw.expand(draw.pick(PATTERNS)).format(
        o=lexicon.thing_object(draw), base=base, s=third, ing=gerund, pp=participle, base2=lexicon.verb(draw)[0],
        adj=draw.pick(words.ADJECTIVES), adj2=draw.pick(words.ADJECTIVES),
        noun=draw.pick(words.SERVICES + words.THINGS),
        noun2=draw.pick(words.SERVICES + words.THINGS), name=lexicon.name(draw),
    )  # fmt: skip
    return capital(text)


def heading(draw: Draw) -> str:
    """A Markdown heading."""
    title = draw.pick((lexicon.verb(draw)[2], draw.pick(words.SERVICES), draw.pick(words.THINGS), lexicon.name(draw)))
    if draw.chance(0.4):
        title += " " + lexicon.thing_object(draw)
    return draw.pick(HEADINGS).format(T=capital(title))


def code_block(draw: Draw) -> str:
    """A fenced block of one or two lines."""
    lines = "\n".join(
        draw.pick((lexicon.command, lexicon.class_name, lexicon.command))(draw) for _ in range(draw.number(1, 2))
    )
    return f"```{draw.pick(('', 'bash', 'python', 'console'))}\n{lines}\n```"


def surround(draw: Draw, sentences: list[str], limit: int) -> str:
    """Sentences with filler, headings and code among them, as a page of about ``limit`` characters has them."""
    parts = list(sentences)
    while sum(map(len, parts)) + len(parts) < limit and draw.chance(0.85):
        extra = filler(draw) if draw.chance(0.7) else statement(draw, random_record(draw))
        parts.insert(draw.number(0, len(parts)), extra)
    if draw.chance(0.25):
        parts.insert(0, heading(draw) + "\n")
    if draw.chance(0.08):
        parts.insert(draw.number(0, len(parts)), "\n" + code_block(draw) + "\n")
    return join(draw, parts)


def join(draw: Draw, parts: list[str]) -> str:
    """Parts as running text, mostly spaces, now and then line breaks or a Markdown list."""
    joint = draw.pick((" ", " ", " ", " ", "\n", "\n\n", "\n- "))
    return joint.join(parts).replace(" \n", "\n").replace("\n ", "\n")
