# ruff: noqa: S608 - the pieces are constants of this file
"""The same queries in SQL, over the same events in SQLite: an independent computation of what must come out.

Queries that put out updates are given as what holds at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from benchmarks.flow.nexmark.events import Auction, Bid, Event, Person
from benchmarks.flow.nexmark.queries import SIDE_INPUT

_WINNING = """
    SELECT a.id, a.seller, a.category, b.price, b.bidder, b.date_time, row_number() OVER (
        PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder DESC, b.extra DESC) AS place
    FROM auction a JOIN bid b ON b.auction = a.id AND b.date_time BETWEEN a.date_time AND a.expires"""
_RANKS = "sum(price < 10000), sum(price >= 10000 AND price < 1000000), sum(price >= 1000000)"


def _by_rank(column: str) -> str:
    return f"""count(DISTINCT {column}), count(DISTINCT CASE WHEN price < 10000 THEN {column} END),
        count(DISTINCT CASE WHEN price >= 10000 AND price < 1000000 THEN {column} END),
        count(DISTINCT CASE WHEN price >= 1000000 THEN {column} END)"""


SQL = {
    "q0": "SELECT * FROM bid",
    "q1": "SELECT auction, bidder, 0.908 * price, date_time FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
    "q4": f"SELECT category, avg(price) FROM ({_WINNING}) WHERE place = 1 GROUP BY category",
    "q5": """
        WITH RECURSIVE hop(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM hop WHERE n < 4),
        counts AS (
            SELECT date_time / 2000 * 2000 - n * 2000 + 10000 AS ends, auction, count(*) AS number
            FROM bid, hop GROUP BY ends, auction)
        SELECT ends, auction, number FROM counts
        WHERE number = (SELECT max(number) FROM counts most WHERE most.ends = counts.ends)""",
    "q7": """
        SELECT auction, price, bidder, date_time FROM bid
        WHERE price = (SELECT max(price) FROM bid best WHERE best.date_time / 10000 = bid.date_time / 10000)""",
    "q8": """
        SELECT id, name FROM person WHERE EXISTS (
            SELECT 1 FROM auction WHERE seller = person.id AND auction.date_time / 10000 = person.date_time / 10000)""",
    "q9": f"SELECT id, seller, price, bidder, date_time FROM ({_WINNING}) WHERE place = 1",
    "q11": """
        WITH gaps AS (SELECT bidder, date_time, date_time - lag(date_time) OVER (
            PARTITION BY bidder ORDER BY date_time) AS pause FROM bid),
        numbered AS (SELECT bidder, date_time, sum(pause IS NULL OR pause >= 10000) OVER (
            PARTITION BY bidder ORDER BY date_time) AS session FROM gaps)
        SELECT bidder, count(*), min(date_time), max(date_time) + 10000 FROM numbered GROUP BY bidder, session""",
    "q12": "SELECT bidder, count(*) FROM bid GROUP BY bidder",
    "q13": """
        SELECT auction, bidder, price, date_time, value FROM bid JOIN side_input ON side_input.key = auction % 10000""",
    "q14": """
        SELECT auction, bidder, 0.908 * price, CASE
            WHEN date_time / 3600000 % 24 BETWEEN 8 AND 18 THEN 'day'
            WHEN date_time / 3600000 % 24 <= 6 OR date_time / 3600000 % 24 >= 20 THEN 'night' ELSE 'other' END,
            date_time, extra, length(extra) - length(replace(extra, 'c', ''))
        FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000""",
    "q16": f"""
        SELECT channel, date_time / 86400000, count(*), {_RANKS}, {_by_rank("bidder")}, {_by_rank("auction")}
        FROM bid GROUP BY channel, date_time / 86400000""",
    "q17": f"""
        SELECT auction, date_time / 86400000, count(*), {_RANKS}, min(price), max(price), avg(price), sum(price)
        FROM bid GROUP BY auction, date_time / 86400000""",
    "q18": """
        SELECT auction, bidder, price, channel, url, date_time, extra FROM (SELECT *, row_number() OVER (
            PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, extra DESC) AS place FROM bid)
        WHERE place = 1""",
    "q19": """
        SELECT auction, bidder, price, channel, url, date_time, extra FROM (SELECT *, row_number() OVER (
            PARTITION BY auction ORDER BY price DESC, date_time, bidder DESC, extra DESC) AS place FROM bid)
        WHERE place <= 10""",
    "q20": """
        SELECT auction, bidder, price, bid.date_time, item_name, seller
        FROM bid JOIN auction ON bid.auction = auction.id WHERE category = 10""",
    "q22": "SELECT auction, bidder, price, channel, part(url, 3), part(url, 4), part(url, 5) FROM bid",
}


class Database:
    """The events as the tables person, auction and bid."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._base = sqlite3.connect(":memory:")
        self._base.create_function("part", 2, lambda text, number: text.split("/")[number], deterministic=True)
        for kind in (Person, Auction, Bid):
            rows = [event for event in events if type(event) is kind]
            self._base.execute(f"CREATE TABLE {kind.__name__.lower()} ({', '.join(kind._fields)})")
            marks = ", ".join("?" * len(kind._fields))
            self._base.executemany(f"INSERT INTO {kind.__name__.lower()} VALUES ({marks})", rows)
        self._base.execute("CREATE TABLE side_input (key, value)")
        self._base.executemany("INSERT INTO side_input VALUES (?, ?)", SIDE_INPUT)
        for table, column in (("bid", "auction"), ("auction", "seller"), ("side_input", "key")):
            self._base.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
        self._base.execute("CREATE INDEX bid_window ON bid (date_time / 10000, price)")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, in order."""
        return comparable(self._base.execute(SQL[query]).fetchall())


def settled(query: str, out: Sequence[Any]) -> list[tuple[Any, ...]]:
    """What holds at the end of what a query put out, in order."""
    if query == "q12":  # where windows of the clock begin and end is another in each run
        totals: dict[int, int] = {}
        for bidder, number in out:
            totals[bidder] = totals.get(bidder, 0) + number
        return comparable(list(totals.items()))
    if query == "q19":
        kept: dict[tuple[Any, ...], int] = {}
        for sign, *bid in out:
            kept[tuple(bid)] = kept.get(tuple(bid), 0) + (1 if sign == "+" else -1)
        return comparable([bid for bid, number in kept.items() for _ in range(number)])
    keys = {"q4": lambda row: row[0], "q16": lambda row: row[:2], "q17": lambda row: row[:2], "q18": _pair}.get(query)
    return comparable(list(out) if keys is None else list({keys(row): row for row in out}.values()))


def comparable(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Sorted, and with what two ways of summing leave in the last digits taken off."""
    return sorted(
        (tuple(round(each, 6) if isinstance(each, float) else each for each in row) for row in rows), key=repr
    )


def _pair(row: Sequence[Any]) -> Any:
    return (row[0], row[1])
