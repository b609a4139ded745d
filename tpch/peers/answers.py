"""Answers queries over Parquet files with DuckDB, for `slipstream-tpch verify`.

Reads {"tables": {name: path}, "queries": {number: sql}} from standard input, and writes
{"version": "1.4.0", "answers": {number: {"types": [...], "rows": [[...]]}}} to standard output.
A type is "exact" or "float"; a cell is text, or null for NULL. Exit code 3: the package duckdb is missing.
"""

import json
import sys

try:
    import duckdb
except ImportError:
    sys.exit(3)


def cell(value):
    """Text which names the value exactly: decimals keep their scale, floats all their digits."""
    if value is None:
        return None
    return repr(value) if isinstance(value, float) else str(value)


def answer(connection, sql):
    """Types and rows of one query."""
    result = connection.execute(sql)
    types = ["float" if str(column[1]) in ("DOUBLE", "FLOAT") else "exact" for column in result.description]
    return {"types": types, "rows": [[cell(value) for value in row] for row in result.fetchall()]}


def main():
    """Answers all queries of the request, or fails with DuckDB's error."""
    request = json.load(sys.stdin)
    connection = duckdb.connect()
    for table, path in request["tables"].items():
        quoted = path.replace("'", "''")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{quoted}')")
    answers = {number: answer(connection, sql) for number, sql in request["queries"].items()}
    json.dump({"version": duckdb.__version__, "answers": answers}, sys.stdout)


main()
