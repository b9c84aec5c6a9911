"""Nexmark's events: persons, auctions and bids of an online auction house, from a seed.

Fields, proportions (of 50 events 1 person, 3 auctions, 46 bids), identifiers, hot items and categories are those that
Nexmark documents (Tucker et al., "NEXMark: A Benchmark for Queries over Data Streams", and the generator of Apache
Beam and nexmark-flink); texts and prices are drawn by this module. Standard library alone: peers read it too.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

FIRST_ID = 1000
FIRST_CATEGORY = 10
CATEGORIES = 5
START = 1_700_000_000_000  # ms since the epoch
OUT_OF_ORDER = 4_000  # ms: the bound of the watermarks, as in nexmark-flink

_GROUP, _PERSONS, _AUCTIONS = 50, 1, 3
_STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
_CITIES = ("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent")
_FIRST = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
_LAST = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")
_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
_ACTIVE = 1_000  # people who are still about
_OPEN = 100  # auctions that still get bids


class Person(NamedTuple):
    """Someone who registers."""

    id: int
    name: str
    email_address: str
    credit_card: str
    city: str
    state: str
    date_time: int
    extra: str


class Auction(NamedTuple):
    """Something that is put up for auction until `expires`."""

    id: int
    item_name: str
    description: str
    initial_bid: int
    reserve: int
    date_time: int
    expires: int
    seller: int
    category: int
    extra: str


class Bid(NamedTuple):
    """A price in cents."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    date_time: int
    extra: str


Event = Person | Auction | Bid


def generate(count: int, *, seed: int = 1, per_second: int = 1_000, shuffled: int = 20) -> list[Event]:
    """`count` events, `per_second` of event time, out of order within groups of `shuffled`."""
    draw, order = random.Random(seed), random.Random(seed + 1)
    found = [_event(number, START + number * 1000 // per_second, draw) for number in range(count)]
    for start in range(0, count, shuffled):
        part = found[start : start + shuffled]
        order.shuffle(part)
        found[start : start + shuffled] = part
    return found


def _event(number: int, now: int, draw: random.Random) -> Event:
    group, place = divmod(number, _GROUP)
    persons = group * _PERSONS + min(place, _PERSONS)  # made before this event
    auctions = group * _AUCTIONS + min(max(place - _PERSONS, 0), _AUCTIONS)
    if place < _PERSONS:
        return _person(FIRST_ID + persons, now, draw)
    if place < _PERSONS + _AUCTIONS:
        return _auction(FIRST_ID + auctions, persons, now, draw)
    return _bid(persons, auctions, now, draw)


def _person(identifier: int, now: int, draw: random.Random) -> Person:
    name = f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    card = " ".join(f"{draw.randrange(10_000):04}" for _ in range(4))
    mail = f"{_word(draw, 7)}@{_word(draw, 5)}.com"
    return Person(
        identifier, name, mail, card, draw.choice(_CITIES), draw.choice(_STATES), now, _word(draw, draw.randrange(40))
    )


def _auction(identifier: int, persons: int, now: int, draw: random.Random) -> Auction:
    first = _price(draw)
    return Auction(
        id=identifier,
        item_name=_word(draw, 12),
        description=_word(draw, 30),
        initial_bid=first,
        reserve=first + _price(draw),
        date_time=now,
        expires=now + draw.randrange(500, 20_000),
        seller=_somebody(persons, draw, hot_ratio=4),
        category=FIRST_CATEGORY + draw.randrange(CATEGORIES),
        extra=_word(draw, draw.randrange(40)),
    )


def _bid(persons: int, auctions: int, now: int, draw: random.Random) -> Bid:
    if draw.randrange(2):  # every other bid goes to the hot auction of its time
        auction = max(auctions - 1, 0) // _OPEN * _OPEN
    else:
        auction = draw.randrange(max(auctions - _OPEN, 0), max(auctions, 1))
    if draw.randrange(2):
        channel, shop = draw.choice(_CHANNELS), _word(draw, 3)
    else:
        number = draw.randrange(100)
        channel, shop = f"channel-{number}", f"shop{number}"
    url = f"https://www.nexmark.com/{shop}/{_word(draw, 3)}/{_word(draw, 4)}/item.htm?query=1"
    bidder = _somebody(persons, draw, hot_ratio=4)
    return Bid(FIRST_ID + auction, bidder, _price(draw), channel, url, now, _word(draw, draw.randrange(30)))


def _somebody(persons: int, draw: random.Random, hot_ratio: int) -> int:
    """A hot person in all but one of `hot_ratio` cases, else one of those who came last."""
    if draw.randrange(hot_ratio):
        return FIRST_ID + max(persons - 1, 0) // 100 * 100
    return FIRST_ID + draw.randrange(max(persons - _ACTIVE, 0), max(persons, 1))


def _price(draw: random.Random) -> int:
    return round(math.pow(10, draw.random() * 6) * 100)


def _word(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=length))
