"""Other words in a whole question: swaps that keep its meaning, for questions that stand as fixed strings."""

from __future__ import annotations

import re
from functools import cache

from training.draw import Draw

_SWAPS = """
How do I = How can I / How would I / How do you / How does one / How to / What do I do to / What's the way to / How should I / In what way do I
How can I = How do I / How would I / How to / Is there a way to / What should I do to
Which command = What command / Which sage command / By what command / What is the command that
What do I type to = What should I type to / What do I enter to / What must I type to / Which command do I use to / What is typed to
Which port = What port / Which port number / Which TCP port / What port number
On which port = On what port / At which port / Under which port
Which variable = What variable / Which environment variable / What env var / Which env variable
Which environment variable = What environment variable / Which env var / What variable
Which class = What class / Which Python class
Which option = What option / Which flag / Which switch / What flag / Which command-line option
Which flag = Which option / What flag / Which switch
Which file = What file / Which of the files
Which folder = What folder / Which directory / What directory
In which = In what / Inside which
Which exit code = What exit code / Which return code / Which exit status / What exit status
What is the exit code = Which exit code is there / What is the exit status / What exit status is there / Which code is returned
Which route = What route / Which endpoint / What endpoint / Which URL path
Where are = In which place are / Where do I find / Where can I find / Where do you keep
Where is = In which place is / Where do I find / Where can I find
Where does SAGE = In which place does SAGE / Where on disk does SAGE / Where will SAGE
What is = What's / What exactly is / Can you say what is
Which = What
by default = as a default / unless I change it / normally / out of the box / if I change nothing
default = standard / usual / preset
start = launch / bring up / boot / fire up / begin / spin up
starts = launches / brings up / boots / fires up
stop = shut down / end / halt / terminate / bring down
stops = shuts down / ends / terminates / brings down
see = view / look at / check / watch
show = display / print / list / give
shows = displays / prints / lists / gives
open = bring up / get / launch / start
opens = brings up / launches / starts / displays
create = make / generate / set up / begin / scaffold
creates = makes / generates / sets up / scaffolds
run = execute / start / launch
runs = executes / starts / launches
check = verify / test / examine / inspect
checks = verifies / tests / examines / inspects
use = take / need / employ
stored = kept / saved / written / put
store = keep / save / put / write
keep = store / save / hold
holds = contains / has / keeps
listen = run / answer / wait for requests / sit
moves = changes / relocates
put = place / store / write
dashboard = monitor screen / terminal dashboard / control panel
engine = LLM engine / model engine / inference engine
the gateway = SAGE's gateway / the API gateway / the SAGE gateway
embedding server = embedding service / embeddings server
a project = a new project / a SAGE project / my project / a fresh project
a new project = a project / a fresh project / my first project / a SAGE project
pipeline = data pipeline / dataflow pipeline / SAGE pipeline
environment = installation / machine / set-up
services = daemons / servers / background processes
daemons = services / background processes / servers
logs = log files / log output / logged lines
log files = logs / log output
licence = license
license = licence
bigger = larger / better / stronger / real
bigger model = larger model / real model / model of my own / better model / stronger model / serious model
built-in model = default model / bundled model / model that ships with SAGE / little model / model inside SAGE
a cluster = a Ray cluster / several machines / the cluster / many nodes
state = data / state files
folder = directory
directory = folder
variable = environment variable / env var
traceback = full traceback / stack trace
means = stands for / signals / indicates / says
failed = went wrong / broke
need = require
required = needed / necessary
address = URL
sets = gives / defines / determines / changes
machine = computer / laptop / own machine
terminal = shell / console / command line
timeout = time limit / time-out
called = named
client = Python client / client library
"""


GOALS = (
    "I want to {g}. [How?|What do I type?|How do I do that?|What do I need?|Which command?]", "I'd like to {g}, how?", "My task is to {g}.",
    "[Today|Now|Next] I have to {g}. [How?|What do I do?|With what?]", "[Help|Please help] me to {g}.", "Someone asked me to {g}. How?",
    "If I want to {g}, what do I do?", "I am trying to {g}. [Any advice?|What is right?]", "Is it possible to {g}? How?",
)  # fmt: skip
NEEDS = (
    "My [script|program|colleague|boss|editor|config file|admin|tool|teacher] [needs|asks for|wants|wants to know] {t}. [What is it?|Can you help?||What do I say?]",
    "I [must|have to|should] [fill in|enter|write down|know|look up] {t}. [What is it?|Please help.||What do I put?]",
    "[A friend|A user|Somebody] asked me about {t}.", "[Yesterday|Once] I knew {t}. Now I forgot. What is it?",
    "In a [form|test|quiz|manual] I am asked for {t}.", "I read about {t}. What is it?", "{T} is what I need.",
    "I cannot find {t} anywhere.", "There must be something like {t}. What is it?", "Without {t} I cannot go on. Which is it?",
)  # fmt: skip


def situation(draw: Draw, topic: str) -> str:
    """A question as part of a small story, made from a noun phrase."""
    for head in ("the way to ", "the command to ", "the flag to "):
        if topic.startswith(head):
            return draw.phrase(GOALS).format(g=topic.removeprefix(head))
    return draw.phrase(NEEDS).format(t=topic, T=topic[:1].upper() + topic[1:])


@cache
def swaps() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Pattern and replacements, longest pattern first."""
    rows = [line.split(" = ") for line in _SWAPS.strip().splitlines()]
    rows.sort(key=lambda row: -len(row[0]))
    return tuple((re.compile(rf"(?<![\w`.-]){re.escape(old)}(?![\w-])"), tuple(new.split(" / "))) for old, new in rows)


def rephrase(draw: Draw, text: str) -> str:
    """The question with one to three swaps, never inside backticks."""
    if "`" in text:
        return text
    options = [(pattern, new) for pattern, new in swaps() if pattern.search(text)]
    for pattern, new in draw.rng.sample(options, min(len(options), draw.number(1, 3))):
        choice = draw.pick(new)
        text = pattern.sub(lambda _, choice=choice: choice, text, count=1)  # type: ignore[misc]
    return text
