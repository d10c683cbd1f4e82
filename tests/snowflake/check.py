"""Checks deploy/snowflake/sql without a Snowflake account.

    check.py FLUX

1. Every statement parses in Snowflake's dialect (sqlfluff), one by one; a broken copy of each file is refused.
2. The landing tables have the columns of the Avro schemas.
3. The bodies of the dynamic tables run on a day of 10,000 emitted meters, with copies, late rows and revisions (fakesnow,
   on DuckDB), and agree with sums that Polars makes of the same files: loads within 0.01 kW, counts exactly.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import fakesnow
import polars as pl
import snowflake.connector
import sqlfluff

ROOT = pathlib.Path(__file__).parents[2]
SQL = ROOT / "deploy" / "snowflake" / "sql"
METERS = 10_000
# What the dialect of sqlfluff does not know yet; the shape is checked instead.
UNKNOWN_TO_SQLFLUFF = [r"^GRANT SELECT ON ALL DYNAMIC TABLES IN SCHEMA \w+ TO ROLE \w+$"]


def statements(text: str) -> list[str]:
    parts = re.split(r"(\$\$.*?\$\$)", text, flags=re.S)
    out, current = [], ""
    for part in parts:
        if part.startswith("$$"):
            current += part
            continue
        pieces = re.sub(r"--[^\n]*", "", part).split(";")
        for piece in pieces[:-1]:
            out.append((current + piece).strip())
            current = ""
        current += pieces[-1]
    return [one for one in [*out, current.strip()] if one]


def parses(statement: str) -> bool:
    if any(re.match(shape, statement) for shape in UNKNOWN_TO_SQLFLUFF):
        return True
    try:
        sqlfluff.parse(statement + ";\n", dialect="snowflake")
    except sqlfluff.api.APIParsingError:
        return False
    return True


def parse_all() -> None:
    count = 0
    files = sorted(SQL.glob("*.sql"))
    for path in files:
        found = statements(path.read_text())
        count += len(found)
        for statement in found:
            assert parses(statement), f"{path.name} does not parse:\n{statement}"
        # A check that accepts anything says nothing.
        longest = max(found, key=len)
        broken = longest.replace("(", "((", 1) if "(" in longest else longest + " IF FOO BAR ("
        if "$$" not in longest:
            assert not parses(broken), f"{path.name}: a broken statement was accepted:\n{broken}"
    print(f"{count} statements of {len(files)} files parse; broken copies are refused")


def columns_agree(cursor) -> None:
    for table, schema in (
        ("AMI_STREAMING_READINGS", "ami_reading_wide.avsc"),
        ("AMI_STREAMING_EVENTS", "ami_event.avsc"),
        ("AMI_STREAMING_ASSETS", "grid_asset.avsc"),
    ):
        fields = json.loads((ROOT / "schemas" / "avro" / schema).read_text())["fields"]
        wanted = [field["name"] for field in fields] + ["RUN_ID", "KAFKA_PARTITION", "KAFKA_OFFSET"]
        found = [row[0] for row in cursor.execute(f"describe table FLUX.PUBLIC.{table}").fetchall()]
        assert found == wanted, f"{table}: {set(found) ^ set(wanted)}"
    print("landing tables have the columns of the schemas")


def dynamic_bodies() -> list[tuple[str, str]]:
    text = (SQL / "05_dynamic_tables.sql").read_text()
    found = re.findall(r"CREATE OR REPLACE DYNAMIC TABLE (\S+)\n.*?\nAS\n(.*?);", text, re.S)
    assert len(found) == 5, [name for name, _ in found]
    return found


def gold(flux: str, connection, folder: pathlib.Path) -> None:
    out = folder / "data"
    emit = ["--seed", "21", "--meters", str(METERS), "--days", "1", "--start", "2026-07-15", "--pattern", "degraded"]
    more = ["--backfill", "on", "--duplicates", "realistic", "--wide", "--demo-events", "on", "--model", "utility"]
    subprocess.run([flux, "generate", *emit, *more, "--out", out], check=True, capture_output=True)
    files = str(out / "dt=*" / "readings.parquet")
    cursor = connection.cursor()
    columns = [row[0] for row in cursor.execute("describe table FLUX.PUBLIC.AMI_STREAMING_READINGS").fetchall()]
    names = ", ".join(columns[:-3])
    # Rows land as the pipe would land them; positions in the order of the file.
    connection._duck_conn.execute(
        f"insert into FLUX.PUBLIC.AMI_STREAMING_READINGS ({', '.join(columns)}) select {names}, 'r', 0, row_number() over () from read_parquet('{files}', hive_partitioning = false)"
    )
    for name, body in dynamic_bodies():
        cursor.execute(f"create or replace table FLUX.{name} as {body}")
    rows = pl.read_parquet(files)
    once = rows.sort("revision").unique(["meter_id", "reading_timestamp"], keep="last")
    assert once.height == METERS * 96 < rows.height, (once.height, rows.height)
    count = cursor.execute("select count(*) from FLUX.SILVER.AMI_READINGS").fetchone()[0]
    assert count == once.height, (count, once.height)

    hour = pl.col("reading_timestamp").dt.truncate("1h").dt.replace_time_zone(None)
    expected = once.group_by("transformer_id", hour.alias("hour")).agg(
        kw=pl.col("usage_kwh").sum(),
        meters=pl.col("meter_id").n_unique(),
        sags=((pl.col("voltage") < 114) & ~pl.col("is_outage")).sum(),
    )
    loads = cursor.execute(
        "select TRANSFORMER_ID, LOAD_HOUR, LOAD_KW, ACTIVE_METERS, VOLTAGE_SAG_COUNT from FLUX.GOLD.TRANSFORMER_HOURLY_LOAD"
    ).fetchall()
    ours = {(transformer, at): rest for transformer, at, *rest in expected.rows()}
    worst = 0.0
    assert len(loads) == len(ours), (len(loads), len(ours))
    for transformer, at, kw, meters, sags in loads:
        mine = ours[(transformer, at)]
        worst = max(worst, abs(float(kw) - mine[0]))
        assert (int(meters), int(sags)) == (mine[1], mine[2]), (transformer, at)
    assert worst < 0.01, worst
    out_rows = cursor.execute("select sum(METERS_OUT), sum(METERS) from FLUX.GOLD.CIRCUIT_STATUS").fetchone()
    assert (int(out_rows[0]), int(out_rows[1])) == (once["is_outage"].sum(), once.height), out_rows
    events = cursor.execute("select count(*) from FLUX.GOLD.VOLTAGE_EVENTS").fetchone()[0]
    outside = once.filter(~pl.col("is_outage") & ((pl.col("voltage") < 114) | (pl.col("voltage") > 126))).height
    assert events == outside > 0, (events, outside)
    month = cursor.execute("select sum(USAGE_KWH), count(*) from FLUX.GOLD.MONTHLY_USAGE").fetchone()
    assert abs(float(month[0]) - once["usage_kwh"].sum()) < 0.01 and month[1] == METERS, month
    print(
        f"{rows.height:,} rows of {METERS:,} meters: {count:,} after dedupe; {len(loads):,} transformer hours agree within {worst:.6f} kW; "
        f"{int(out_rows[0])} meter intervals out, {events} outside 114 to 126 V"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    parse_all()
    with tempfile.TemporaryDirectory() as temporary, fakesnow.patch():
        connection = snowflake.connector.connect(database="FLUX", schema="PUBLIC")
        cursor = connection.cursor()
        for schema in ("SILVER", "GOLD"):
            cursor.execute(f"create schema if not exists {schema}")
        cursor.execute("use schema FLUX.PUBLIC")
        for statement in statements((SQL / "03_streaming_tables.sql").read_text()):
            if statement.startswith("CREATE"):
                cursor.execute(statement)
        columns_agree(cursor)
        gold(sys.argv[1], connection, pathlib.Path(temporary))


if __name__ == "__main__":
    main()
