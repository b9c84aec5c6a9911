"""Other words for the same: what a question may call a thing that the context names differently."""

from __future__ import annotations

from training import words
from training.draw import Draw

VERB_GROUPS = tuple(
    tuple(part.strip() for part in row.split(","))
    for row in """start, launch, begin, boot, bring up
stop, end, halt, shut down
create, make, generate, set up
remove, delete, erase, drop, get rid of
show, display, print, view
check, verify, examine, inspect, test
run, execute
build, compile, assemble
update, upgrade, renew
save, store, keep
send, transmit
copy, duplicate
change, modify, edit, alter, adjust
choose, select, pick
find, locate, discover
watch, monitor, observe
download, fetch, get
upload, publish
cancel, abort
limit, restrict, cap
enable, turn on, activate, switch on
disable, turn off, deactivate, switch off
merge, combine, join
split, divide
count, number
open, bring up, access
name, call
look at, view, read
hide, conceal
encrypt, lock
import, load
install, set up
reset, clear
clean, tidy
schedule, plan
move, transfer
pause, hold
resume, continue
restart, reboot
sort, order
search, look through
define, specify, set""".splitlines()
)
IRREGULAR = {
    "begin": "begun", "bring": "brought", "make": "made", "get": "got", "find": "found", "keep": "kept", "send": "sent",
    "choose": "chosen", "run": "run", "set": "set", "shut": "shut", "build": "built", "read": "read", "hold": "held",
    "lock": "locked",
}  # fmt: skip
DOUBLED = frozenset(
    ("begin", "stop", "get", "run", "set", "shut", "drop", "cap", "plan", "transfer", "transmit", "abort")
)
NOT_DOUBLED = frozenset(("abort",))
ATTRIBUTES = {
    "port": ("port number",), "timeout": ("time limit", "waiting time"), "version": ("release", "version number"),
    "owner": ("proprietor",), "author": ("writer", "creator"), "price": ("cost",), "birthday": ("date of birth",),
    "licence": ("license",), "license": ("licence",), "colour": ("color",), "headquarters": ("head office",),
    "memory limit": ("maximum memory",), "default method": ("standard method",), "location": ("place",),
    "founder": ("creator",),
    "log file": ("file for logs",), "config file": ("configuration file", "settings file"),
    "password": ("secret word",),
    "batch size": ("size of a batch",), "queue length": ("length of the queue",),
    "number of workers": ("worker count",),
    "retry limit": ("number of retries",), "user name": ("login",), "deadline": ("last day",), "budget": ("money",),
    "framework": ("toolkit",), "database": ("data store",), "error rate": ("share of errors",), "script": ("program",),
    "release date": ("day of release",), "start command": ("command that starts it",),
    "default port": ("standard port",),
    "endpoint": ("URL path", "route"), "route": ("path", "endpoint"), "delay": ("wait",),
    "capacity": ("number of places",),
}  # fmt: skip


def inflect(verb: str) -> tuple[str, str, str, str]:
    """Base, third person, gerund and participle of a verb or verb with a particle."""
    known = {base.replace("-", " "): forms for base, *forms in words.VERBS}
    if verb in known:
        third, gerund, participle = (form.replace("-", " ") for form in known[verb])
        return verb, third, gerund, participle
    head, _, tail = verb.partition(" ")
    tail = f" {tail}" if tail else ""
    third = head + ("es" if head.endswith(("ch", "sh", "s", "x")) else "s")
    if head.endswith("fy"):
        third = head[:-1] + "ies"
    root = head[:-1] if head.endswith("e") else head + (head[-1] if head in DOUBLED - NOT_DOUBLED else "")
    participle = IRREGULAR.get(head) or (head[:-1] + "ied" if head.endswith("fy") else root + "ed")
    return verb, third + tail, root + "ing" + tail, participle + tail


def other_verb(draw: Draw, base: str) -> tuple[str, str, str, str] | None:
    """The forms of a verb that means about the same, or None where none is known."""
    groups = [group for group in VERB_GROUPS if base in group]
    if not groups:
        return None
    others = [verb for verb in draw.pick(groups) if verb != base]
    return inflect(draw.pick(others))


def same_meaning(base: str) -> frozenset[str]:
    """All verbs of the groups that hold this one."""
    return frozenset(verb for group in VERB_GROUPS if base in group for verb in group)


def other_attribute(draw: Draw, attribute: str) -> str | None:
    """Another word for an attribute, or None."""
    others = ATTRIBUTES.get(attribute)
    return draw.pick(others) if others else None
