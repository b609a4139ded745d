"""Runs one query over Parquet files with DuckDB or Polars, for `slipstream-tpch peers`.

With the argument "check" it prints the versions of both packages as JSON, or, with exit code 3, the names of those
that cannot be imported. Else the argument is JSON:
{"engine": "duckdb" | "polars", "tables": {name: path}, "sql": text, "threads": 2, "memory_limit_bytes": null,
"scratch": folder}. It then speaks the line protocol of the harness: "ready" once the tables are registered, and for
each line read one run, answered with {"done": {...}} or {"failed": {"message": text}}.
"""

import importlib
import json
import os
import queue
import resource
import sys
import threading
import time

PACKAGES = ("duckdb", "polars")
NOT_INSTALLED = 3


def check():
    """Versions of the packages, or the names of those that are missing."""
    versions, missing = {}, []
    for package in PACKAGES:
        try:
            versions[package] = importlib.import_module(package).__version__
        except ImportError:
            missing.append(package)
    if missing:
        print(" ".join(missing))
        sys.exit(NOT_INSTALLED)
    print(json.dumps(versions))


def reply(message):
    """One JSON value a line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def requests():
    """The lines of standard input. Its end ends the process, even when it is busy: the harness is gone."""
    lines = queue.Queue(maxsize=1)

    def read():
        for line in sys.stdin:
            lines.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def peak_rss_bytes():
    """The most memory that this process ever had resident."""
    # Linux hands ru_maxrss down from the process that started this one; VmHWM is that of this program alone.
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duckdb_query(job):
    """A function that runs the query, and one that counts the rows of its result."""
    import duckdb

    connection = duckdb.connect()
    # What it prints belongs to the protocol.
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET threads = {int(job['threads'])}")
    connection.execute("SET temp_directory = '" + job["scratch"].replace("'", "''") + "'")
    if job["memory_limit_bytes"] is not None:
        connection.execute(f"SET memory_limit = '{int(job['memory_limit_bytes'])}B'")
    for table, path in job["tables"].items():
        quoted = path.replace("'", "''")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{quoted}')")
    # `execute` computes rows no sooner than they are fetched, and fetching makes Python objects of them, which is not
    # the engine's work; a temporary table takes the whole result as it is.
    sql = "CREATE OR REPLACE TEMP TABLE slipstream_result AS\n" + job["sql"]
    count = "SELECT count(*) FROM slipstream_result"
    return lambda: connection.execute(sql), lambda _: connection.execute(count).fetchone()[0]


def polars_query(job):
    """The same for Polars; its number of threads is read from the environment, once, by the import."""
    os.environ["POLARS_MAX_THREADS"] = str(int(job["threads"]))
    import polars

    frames = {table: polars.scan_parquet(path) for table, path in job["tables"].items()}

    def run():
        try:
            # A context for each run: it keeps the tables that a query defines in WITH.
            with polars.SQLContext(frames=frames, eager=False) as context:
                return context.execute(job["sql"]).collect()
        except (polars.exceptions.SQLInterfaceError, polars.exceptions.SQLSyntaxError) as error:
            raise NotImplementedError(str(error)) from error

    return run, lambda result: result.height


def measure(run, count):
    """One run: from the text of the query to the whole result, which is counted when the clock has stopped."""
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    figures = {"elapsed_ms": elapsed * 1e3, "rows": count(result)}
    return figures | {"peak_rss_bytes": peak_rss_bytes()}


def main():
    """Serves requests; an error of the engine is the answer to a request, not the end."""
    if sys.argv[1] == "check":
        check()
        return
    job = json.loads(sys.argv[1])
    run, count = {"duckdb": duckdb_query, "polars": polars_query}[job["engine"]](job)
    reply("ready")
    for _ in requests():
        try:
            reply({"done": measure(run, count)})
        except NotImplementedError as error:
            reply({"failed": {"message": f"not supported: {error}"}})
        except Exception as error:  # whatever the engine raises is its answer
            reply({"failed": {"message": f"{type(error).__name__}: {error}"}})


main()
