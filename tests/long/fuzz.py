"""Statements made by a grammar, answered by tarn and by DuckDB.

    python fuzz.py --tarn target/debug/tarn --statements 300 --seed 1

A statement of one seed and number is the same in every run. Tables are small and have what goes wrong: nulls, NaN, both zeros,
decimals, duplicates, no rows at all. An answer that differs fails, as does one that is refused for another reason than `REFUSED`
names, a process that ends, and memory beyond the limit and a quarter.
"""

import argparse
import collections
import random
import re
import sys
import threading

import duckdb

from lake import Lake, Refused, comparable, multiset

MEMORY = 1 << 30

COLUMNS = {"a": "int", "b": "int", "x": "double", "d": "decimal", "s": "text", "dt": "date", "f": "bool", "y": "double", "ts": "time"}
TYPES = "a int, b bigint, x double, d decimal(10,2), s varchar, dt date, f boolean, y double, ts timestamp"
VALUES = {
    "int": ["NULL", "-2", "-1", "0", "0", "1", "1", "2", "3", "7"],
    "double": ["NULL", "CAST('NaN' AS double)", "-0e0", "0e0", "0.5e0", "1e0", "-1.5e0", "2.25e0", "100e0"],
    "decimal": ["NULL", "0.00", "0.10", "0.30", "1.00", "-1.05", "8.04", "19.99", "2.50"],
    "text": ["NULL", "''", "'a'", "'b'", "'ab'", "'a%'", "'a_b'", "'a\\b'", "'ä'", "'B'"],
    "date": ["NULL", "DATE '2024-01-31'", "DATE '2024-02-29'", "DATE '1969-12-31'", "DATE '2024-03-01'"],
    "bool": ["NULL", "true", "false"],
    "time": [
        "NULL", "TIMESTAMP '2024-01-31 00:00:00'", "TIMESTAMP '1969-12-31 23:59:59.999999'", "TIMESTAMP '2024-02-29 12:30:45.5'",
        "TIMESTAMP '1900-01-01 00:00:00'", "TIMESTAMP '9999-12-31 23:59:59'", "TIMESTAMP '0001-01-01 00:00:00'",
    ],
}
KEYED = ["int", "double", "decimal", "text", "date", "bool", "time"]

# Where tarn says no and DuckDB answers, for a reason that is known. Each has its line in docs/engine-faults.md or docs/query.md.
REFUSED = [
    "overflow",
    "of more digits",
    "division by zero",
    "divide by zero",
    "not supported: a subquery that depends on the query around it",
    "is ambiguous",
]


class Grammar:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, part):
        return self.random.random() < part

    def one(self, *of):
        return self.random.choice(of)

    def column(self, ty, scope):
        names = [c for c, t in COLUMNS.items() if t == ty]
        return f"{self.one(*scope)}.{self.one(*names)}"

    def value(self, ty, scope, depth=2):
        """An expression of the type over the relations in scope."""
        if depth == 0 or self.chance(0.45):
            return self.column(ty, scope) if self.chance(0.7) else self.literal(ty)
        go = lambda t: self.value(t, scope, depth - 1)
        general = [
            lambda: f"coalesce({go(ty)}, {go(ty)})",
            lambda: f"nullif({go(ty)}, {go(ty)})",
            lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {go(ty)} ELSE {go(ty)} END",
            lambda: f"CASE {go('int')} WHEN 1 THEN {go(ty)} WHEN 0 THEN {go(ty)} END",
        ]
        own = {
            "int": [
                lambda: f"({go('int')} {self.one('+', '-', '*')} {go('int')})",
                lambda: f"(- {go('int')})",
                lambda: f"abs({go('int')})",
                lambda: f"({go('int')} % 3)",
                lambda: f"length({go('text')})",
                lambda: f"CAST({go('decimal')} AS int)",
                lambda: f"CAST(extract({self.one('year', 'month', 'day', 'quarter')} FROM {go(self.one('date', 'time'))}) AS bigint)",
                lambda: f"date_diff('day', {go('date')}, {go('date')})",
            ],
            "double": [
                lambda: f"({go('double')} {self.one('+', '-', '*')} {go(self.one('double', 'decimal', 'int'))})",
                lambda: f"CAST({go(self.one('int', 'decimal'))} AS double)",
                lambda: f"abs({go('double')})",
                lambda: f"({go('double')} / {go('double')})",
                lambda: self.outermost(go("double"), go("double")),
            ],
            "decimal": [
                lambda: f"({go('decimal')} {self.one('+', '-')} {go(self.one('decimal', 'int'))})",
                lambda: f"({self.column('decimal', scope)} * {self.literal('decimal')})",
                lambda: f"CAST({self.column('int', scope)} AS decimal(10,2))",
                lambda: f"abs({go('decimal')})",
            ],
            "text": [
                lambda: f"({go('text')} || {go('text')})",
                lambda: f"upper({self.column('text', scope)})",
                lambda: f"substr({go('text')}, 1, 2)",
                lambda: f"CAST({go(self.one('int', 'date'))} AS varchar)",
            ],
            "date": [lambda: f"CAST(CAST({go('date')} AS varchar) AS date)", lambda: f"CAST({go('time')} AS date)"],
            "time": [
                lambda: f"date_trunc('{self.one('day', 'hour', 'month', 'year')}', {go('time')})", lambda: f"CAST({go('date')} AS timestamp)",
                lambda: f"CAST(CAST({go('time')} AS varchar) AS timestamp)",
            ],
            "bool": [lambda: f"({self.condition(scope, depth - 1)})"],
        }
        return self.one(*general, *own[ty], *own[ty])()

    def literal(self, ty):
        return self.one(*VALUES[ty])

    def condition(self, scope, depth=2):
        ty = self.one("int", "int", "double", "decimal", "text", "date", "time")
        go = lambda: self.value(ty, scope, max(depth - 1, 0))
        simple = [
            lambda: f"{go()} {self.one('=', '<>', '<', '<=', '>', '>=')} {go()}",
            lambda: f"{go()} IS {self.one('', 'NOT ')}NULL",
            lambda: f"{go()} {self.one('', 'NOT ')}IN ({go()}, {go()}, {self.literal(ty)})",
            lambda: f"{go()} {self.one('', 'NOT ')}IN ({', '.join(self.literal(ty) for _ in range(self.random.randint(4, 7)))})",
            lambda: f"{go()} {self.one('', 'NOT ')}BETWEEN {go()} AND {go()}",
            lambda: f"{go()} IS {self.one('', 'NOT ')}DISTINCT FROM {go()}",
            lambda: f"{self.value('double', scope, 0)} {self.one('=', '<', '>=')} {self.value(self.one('int', 'decimal'), scope, 0)}",
            lambda: f"{self.value('decimal', scope, 0)} {self.one('=', '<', '<>')} {self.value('int', scope, 0)}",
            lambda: f"{self.value('text', scope, 1)} {self.one('', 'NOT ')}LIKE {self.one(*PATTERNS)}",
            lambda: self.value("bool", scope, 0),
        ]
        if depth > 0:
            simple += [
                lambda: f"({self.condition(scope, depth - 1)} {self.one('AND', 'OR')} {self.condition(scope, depth - 1)})",
                lambda: f"NOT ({self.condition(scope, depth - 1)})",
            ]
        return self.one(*simple)()

    def subquery(self, ty, scope, single=False):
        """A query of one column, which may name columns around it."""
        inner = [f"q{self.random.randrange(1000)}"]
        both = inner + (list(scope) if self.chance(0.6) else [])
        table = self.one("t1", "t2", "t0")
        where = f" WHERE {self.condition(both, 1)}" if self.chance(0.8) else ""
        if self.chance(0.5) and len(both) > 1:
            key = self.one("a", "b", "s", "d")
            where += f"{' AND' if where else ' WHERE'} {inner[0]}.{key} = {self.one(*scope)}.{key}"
        if single:
            what = self.aggregate(ty, inner)
        else:
            what = self.value(ty, inner, 1)
        return f"(SELECT {what} FROM {table} {inner[0]}{where})"

    def aggregate(self, ty, scope):
        of = lambda t: self.value(t, scope, 1)
        if ty == "int":
            return self.one(
                lambda: "count(*)", lambda: f"count({of('text')})", lambda: f"count(DISTINCT {self.column('int', scope)})",
                lambda: f"sum({self.column('int', scope)})", lambda: f"max({of('int')})", lambda: f"coalesce(min({of('int')}), 0)",
                lambda: f"count(*) FILTER (WHERE {self.condition(scope, 1)})",
            )()
        if ty == "double":
            return self.one(
                lambda: f"avg({self.column('int', scope)})", lambda: f"{self.one('min', 'max')}({of('double')})",
                lambda: f"{self.one('sum', 'avg')}({self.column('double', scope)})", lambda: f"avg(CAST({self.column('int', scope)} AS double))",
                lambda: f"{self.one('sum', 'avg')}({self.column('double', scope)}) FILTER (WHERE {self.condition(scope, 1)})",
            )()
        if ty == "decimal":
            return self.one(
                lambda: f"sum({self.column('decimal', scope)})", lambda: f"min({of('decimal')})",
                lambda: f"sum(DISTINCT {self.column('decimal', scope)})",
            )()
        return f"{self.one('min', 'max')}({self.column(ty, scope)})"

    def predicate(self, scope):
        """A condition that may ask subqueries."""
        ty = self.one("int", "int", "decimal", "text", "double", "time")
        asks = [
            lambda: f"{self.value(ty, scope, 1)} {self.one('', 'NOT ')}IN {self.subquery(ty, scope)}",
            lambda: f"{self.one('', 'NOT ')}EXISTS {self.subquery('int', scope)}",
            lambda: f"{self.value(ty, scope, 1)} {self.one('=', '<', '>=', '<>')} {self.subquery(ty, scope, single=True)}",
            lambda: f"{self.value(ty, scope, 1)} {self.one('=', '<', '>', '<>')} {self.one('ANY', 'ALL')} {self.subquery(ty, scope)}",
        ]
        shape = self.random.random()
        if shape < 0.5:
            return self.condition(scope)
        if shape < 0.8:
            return self.one(*asks)()
        return f"({self.one(*asks)()} {self.one('AND', 'OR')} {self.condition(scope, 1)})"

    def source(self):
        """A FROM item and the relations that it brings into scope."""
        shape = self.random.random()
        table = lambda: self.one("t1", "t1", "t2", "t2", "t0")
        if shape < 0.4:
            return f"{table()} p", ["p"]
        on = lambda: self.one(
            lambda: f"p.{(c := self.one('a', 'b', 's', 'd', 'dt', 'x'))} = r.{c}", lambda: "p.a = r.b",
            lambda: f"p.a = r.a AND {self.condition(['p', 'r'], 1)}", lambda: "p.a IS NOT DISTINCT FROM r.a",
            lambda: f"p.a < r.b",
        )()
        kind = self.one("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
        if kind == "FULL JOIN":
            return f"{table()} p FULL JOIN {table()} r ON p.{(c := self.one('a', 's', 'd'))} = r.{c}", ["p", "r"]
        if shape < 0.9:
            return f"{table()} p {kind} {table()} r ON {on()}", ["p", "r"]
        inner = f"(SELECT * FROM {table()} i WHERE {self.condition(['i'], 1)}) p"
        return inner, ["p"]

    def statement(self):
        shape = self.random.random()
        if shape < 0.3:
            return self.plain()
        if shape < 0.55:
            return self.grouped()
        if shape < 0.65:
            return self.windowed()
        if shape < 0.75:
            return self.sets()
        if shape < 0.85:
            return self.limited()
        if shape < 0.92:
            return self.using()
        return self.valued()

    def outermost(self, left, right):
        """The greater or lesser of two; null beside a null, which the judge passes over."""
        call = f"{self.one('greatest', 'least')}({left}, {right})"
        return f"CASE WHEN ({left}) IS NOT NULL AND ({right}) IS NOT NULL THEN {call} END"

    def types(self, least=1, most=3):
        return [self.one(*KEYED) for _ in range(self.random.randint(least, most))]

    def plain(self):
        source, scope = self.source()
        items = ", ".join(f"{self.value(ty, scope)} AS c{i}" for i, ty in enumerate(self.types()))
        where = f" WHERE {self.predicate(scope)}" if self.chance(0.8) else ""
        return f"SELECT {self.one('', '', 'DISTINCT ')}{items} FROM {source}{where}"

    def grouped(self):
        source, scope = self.source()
        keys = [self.column(ty, scope) if self.chance(0.7) else f"coalesce({self.value(ty, scope, 1)}, {self.column(ty, scope)})" for ty in self.types(0, 2)]
        if self.chance(0.9):
            keys = list(dict.fromkeys(keys))
        items = [f"{key} AS k{i}" for i, key in enumerate(keys)]
        items += [f"{self.aggregate(self.one('int', 'double', 'decimal', 'text', 'time'), scope)} AS c{i}" for i in range(self.random.randint(1, 3))]
        where = f" WHERE {self.predicate(scope)}" if self.chance(0.5) else ""
        by = ""
        if keys:
            listed = ", ".join(keys)
            by = " GROUP BY " + self.one(listed, listed, f"ROLLUP ({listed})", f"CUBE ({listed})", f"GROUPING SETS (({listed}), ())")
        having = f" HAVING {self.aggregate('int', scope)} {self.one('>', '=', '<')} {self.one(0, 1, 2)}" if self.chance(0.3) else ""
        return f"SELECT {', '.join(items)} FROM {source}{where}{by}{having}"

    def windowed(self):
        scope = ["p"]
        order = "p.id" if self.chance(0.5) else f"{self.column(self.one(*KEYED), scope)} {self.one('', 'DESC ')}NULLS {self.one('FIRST', 'LAST')}"
        total = f"{order}, p.id"
        part = f"PARTITION BY {self.column(self.one(*KEYED), scope)} " if self.chance(0.6) else ""
        frame = self.one("", "ROWS UNBOUNDED PRECEDING", "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING", "ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING", "ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING")
        call = self.one(
            lambda: f"row_number() OVER ({part}ORDER BY {total})", lambda: f"rank() OVER ({part}ORDER BY {order})",
            lambda: f"dense_rank() OVER ({part}ORDER BY {order})", lambda: f"lag({self.column('int', scope)}) OVER ({part}ORDER BY {total})",
            lambda: f"lead({self.column('text', scope)}, 2) OVER ({part}ORDER BY {total})",
            lambda: f"{self.one('sum', 'count', 'min', 'max')}({self.column(self.one('int', 'decimal', 'double'), scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"{self.one('avg', 'sum', 'max', 'min')}({self.column('double', scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"{self.one('bool_and', 'bool_or')}({self.column('bool', scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"{self.one('min', 'max')}({self.column(self.one('text', 'time'), scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"{self.one('percent_rank', 'cume_dist')}() OVER ({part}ORDER BY {order})",
            lambda: f"sum({self.column('int', scope)}) OVER ({part}ORDER BY {order})",
            lambda: f"first_value({self.column('int', scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"last_value({self.column('text', scope)}) OVER ({part}ORDER BY {total} {frame})",
            lambda: f"count(*) OVER ({part})", lambda: f"ntile(3) OVER ({part}ORDER BY {total})",
        )()
        return f"SELECT p.id, {call} AS w FROM {self.one('t1', 't2')} p WHERE {self.condition(scope, 1)}"

    def sets(self):
        types = self.types(1, 2)
        side = lambda: "SELECT " + ", ".join(f"{self.column(ty, ['p'])} AS c{i}" for i, ty in enumerate(types)) + f" FROM {self.one('t1', 't2', 't0')} p" + (f" WHERE {self.condition(['p'], 1)}" if self.chance(0.5) else "")
        op = self.one("UNION", "UNION ALL", "EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL")
        return f"{side()} {op} {side()}"

    def limited(self):
        source, scope = f"{self.one('t1', 't2')} p", ["p"]
        if self.chance(0.4):
            key, value = self.column(self.one(*KEYED), scope), self.aggregate(self.one("int", "decimal", "double", "time"), scope)
            return f"SELECT {key} AS k, {value} AS v FROM {source} GROUP BY {key} ORDER BY v {self.one('', 'DESC ')}NULLS {self.one('FIRST', 'LAST')}, k NULLS FIRST LIMIT {self.one(1, 2, 3, 5)}"
        ty = self.one(*KEYED)
        order = f"{self.value(ty, scope, 1)} {self.one('', 'DESC ')}NULLS {self.one('FIRST', 'LAST')}, p.id"
        where = f" WHERE {self.predicate(scope)}" if self.chance(0.4) else ""
        return f"SELECT p.id, {self.value(ty, scope, 1)} AS v FROM {source}{where} ORDER BY {order} LIMIT {self.one(0, 1, 3, 5)} OFFSET {self.one(0, 1, 4)}"

    def using(self):
        kind, key = self.one("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"), self.one("a", "b", "s", "d", "y", "ts")
        shape = self.one(
            f"SELECT {key}, p.x AS px, r.x AS rx FROM t1 p {kind} t2 r USING ({key})",
            f"SELECT {key}, count(*) AS n FROM t1 p {kind} t2 r USING ({key}) GROUP BY {key}",
            f"SELECT {key}, p.id AS pid FROM t1 p {kind} t2 r USING ({key}) WHERE {key} IS NOT NULL",
        )
        return shape

    def valued(self):
        scope = ["p"]
        ty = self.one("int", "decimal", "text", "double", "time")
        asks = self.one(
            lambda: f"{self.value(ty, scope, 1)} {self.one('', 'NOT ')}IN {self.subquery(ty, scope)}",
            lambda: f"EXISTS {self.subquery('int', scope)}", lambda: self.subquery(ty, scope, single=True),
            lambda: f"CASE WHEN {self.value('int', scope, 1)} IN {self.subquery('int', scope)} THEN 1 ELSE 0 END",
            lambda: f"{self.value('int', scope, 1)} {self.one('<', '>')} {self.one('ANY', 'ALL')} {self.subquery('int', scope)}",
        )()
        return f"SELECT p.id, {asks} AS v FROM {self.one('t1', 't2')} p"


PATTERNS = ["'a%'", "'%b'", "'_'", "'a_'", "'a!%' ESCAPE '!'", "'a!_b' ESCAPE '!'", "'a\\b'", "''", "'%'", "'%a%b%'"]


def tables(seed):
    """Statements that make the tables; both engines run them."""
    made = random.Random(seed)
    for name, rows in (("t1", 14), ("t2", 11), ("t0", 0)):
        yield f"CREATE TABLE {name} (id int, {TYPES})"
        if rows:
            values = ", ".join(f"({i}, " + ", ".join(made.choice(VALUES[ty]) for ty in COLUMNS.values()) + ")" for i in range(rows))
            yield f"INSERT INTO {name} VALUES {values}"


def open_judge(seed):
    judge = duckdb.connect(config={"threads": 1})
    judge.execute("SET default_null_order = 'nulls_last'")
    for statement in tables(seed):
        judge.execute(statement)
    return judge


def second_opinion(judge, sql):
    """The judge's answer without its optimizer, which takes unknown for true in some EXISTS."""
    judge.execute("PRAGMA disable_optimizer")
    stop = threading.Timer(10, judge.interrupt)
    stop.start()
    try:
        return multiset(judge.execute(sql).fetchall())
    except duckdb.Error:
        return None
    finally:
        stop.cancel()
        judge.execute("PRAGMA enable_optimizer")


def compared(lake, judge, sql):
    """None if both agree; else what is wrong."""
    try:
        expected = judge.execute(sql).fetchall()
    except duckdb.Error as error:
        expected = error
    try:
        found = lake.rows(sql)
    except Refused as error:
        if error.status >= 500:
            return f"status {error.status}: {error.message}"
        if isinstance(expected, duckdb.Error) or any(known in error.message.lower() for known in REFUSED):
            return None
        return f"refused: {error.message}"
    if isinstance(expected, duckdb.Error):
        return None  # the judge has no answer
    if multiset(found) in (multiset(expected), second_opinion(judge, sql)):
        return None
    return f"expected {multiset(expected)[:8]}\n   found {multiset(found)[:8]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tarn", required=True)
    parser.add_argument("--statements", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one statement, by its number")
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    options = parser.parse_args()
    judge = open_judge(options.seed)
    wrong = collections.Counter()
    with Lake(options.tarn, MEMORY) as lake:
        for statement in tables(options.seed):
            lake.rows(statement)
        numbers = range(options.statements) if options.only is None else [options.only]
        for number in numbers:
            sql = Grammar(f"{options.seed}/{number}").statement()
            difference = compared(lake, judge, sql)
            if difference:
                kind = re.sub(r"[`'\"].*|\d+", "", difference.splitlines()[0])[:80]
                wrong[kind] += 1
                if wrong[kind] <= 3 and sum(wrong.values()) <= options.show:
                    print(f"{number}: {sql}\n   {difference}", flush=True)
        peak = lake.peak_bytes()
    print(f"{options.statements} statements, seed {options.seed}: {sum(wrong.values())} wrong, peak {peak >> 20} MiB")
    for kind, count in wrong.most_common(20):
        print(f"{count:6} {kind}")
    if peak > MEMORY * 5 // 4:
        sys.exit(f"expected at most {MEMORY * 5 // 4} bytes of memory, found {peak}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
