"""Makes the dashboards in dashboards/: `python3 build.py`. Standard library only.

A panel is (title, unit, queries); a query is PromQL, or SQL for the dashboard of the fleet. tests/monitoring/check.py
runs every one of them on a running pipeline and fails on an answer without rows.
"""

import json
import pathlib

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "postgres"}

READINGS = "ami_interval_readings"
# The newest day that has rows: what a laptop shows is history, what production shows is now.
NEWEST = f"(select max(reading_timestamp) from {READINGS})"
DAY = f"reading_timestamp > {NEWEST} - interval '1 day'"

DASHBOARDS = {
    "overview": (
        "Flux: pipeline",
        [
            ("Readings into Kafka", "ops", {"readings/s": "sum(rate(flux_producer_records_total[1m]))"}),
            ("Rows durable", "ops", {"{{sink}} {{records}}": "sum by (sink, records) (rate(flux_sink_records_total[1m]))"}),
            ("Rows so far", "short", {"{{sink}} {{records}}": "sum by (sink, records) (flux_sink_records_total)"}),
            ("Lag", "short", {"{{sink}} {{records}}": "sum by (sink, records) (flux_consumer_lag_records)"}),
            ("Roles that answer", "short", {"{{role}}": "sum by (role) (up{job=\"flux\"})"}),
            ("Builds", "short", {"{{version}}": "count by (version) (flux_build_info)"}),
        ],
    ),
    "producer": (
        "Flux: producer and its schedule",
        [
            ("What became of readings", "ops", {"{{outcome}}": "sum by (outcome) (rate(flux_producer_readings_total[1m]))"}),
            ("Behind the schedule", "s", {"lag": "max(flux_producer_lag_seconds)"}),
            ("Offered after due, 99 %", "s", {"p99": "(histogram_quantile(0.99, sum by (le) (rate(flux_producer_lateness_seconds_bucket[5m]))) >= 0) or vector(0)"}),
            ("Transaction to commit, median", "s", {"p50": "histogram_quantile(0.5, sum by (le) (flux_producer_delivery_latency_seconds_bucket))"}),
            ("Transactions", "short", {"{{result}}": "sum by (result) (flux_producer_transactions_total)"}),
            ("Bytes of values", "Bps", {"bytes/s": "sum(rate(flux_producer_bytes_total[1m]))"}),
            ("Events", "short", {"events": "sum(flux_producer_events_total)"}),
            ("Records in the client", "short", {"queued": "max(flux_producer_queue_messages)"}),
        ],
    ),
    "sinks": (
        "Flux: sinks",
        [
            ("Rows durable", "ops", {"{{sink}}": "sum by (sink) (rate(flux_sink_records_total[1m]))"}),
            ("Bytes durable", "Bps", {"{{sink}}": "sum by (sink) (rate(flux_sink_bytes_total[1m]))"}),
            ("Rows of a unit, median", "short", {"{{sink}}": "histogram_quantile(0.5, sum by (sink, le) (flux_sink_batch_records_bucket))"}),
            ("Time to hand a unit over, 95 %", "s", {"{{sink}}": "histogram_quantile(0.95, sum by (sink, le) (flux_sink_flush_duration_seconds_bucket))"}),
            ("Rows in memory", "short", {"{{sink}}": "sum by (sink) (flux_sink_buffer_records)"}),
            ("Retries", "short", {"{{sink}}": "sum by (sink) (flux_sink_retries_total) or sum by (sink) (flux_sink_records_total * 0)"}),
            ("Set aside", "short", {"{{sink}}": "sum by (sink) (flux_dlq_records_total)"}),
            ("Refused by Snowflake", "short", {"rows": "sum(flux_snowpipe_channel_rows_error_total) or vector(0)"}),
        ],
    ),
    "kafka": (
        "Flux: Kafka and consumer groups",
        [
            ("Lag by partition", "short", {"{{sink}} {{topic}}/{{partition}}": "flux_consumer_lag_records"}),
            ("Durable position", "short", {"{{sink}} {{topic}}/{{partition}}": "flux_sink_committed_offset"}),
            ("Time to drain", "s", {"{{sink}}": "sink:flux_drain_seconds:ratio or sink:flux_consumer_lag_records:sum * 0"}),
            ("Rebalances", "short", {"{{sink}}": "sum by (sink) (flux_consumer_rebalances_total)"}),
        ],
    ),
    "slo": (
        "Flux: freshness",
        [
            ("Due to durable, 99 %, by kind", "s", {"{{sink}} {{kind}}": "histogram_quantile(0.99, sum by (sink, kind, le) (flux_sink_end_to_end_latency_seconds_bucket))"}),
            ("Since the last durable unit", "s", {"{{sink}}": "time() - sink:flux_sink_last_success_timestamp_seconds:max"}),
            ("Late units of the last hour", "percentunit", {"{{sink}}": "sink:flux_freshness_bad:ratio_rate1h or sink:flux_consumer_lag_records:sum * 0"}),
            ("Alerts that fire", "short", {"{{alertname}}": "sum by (alertname) (ALERTS{alertstate=\"firing\"}) or vector(0)"}),
        ],
    ),
    "fleet": (
        "Flux: the fleet, from the data itself",
        [
            ("Load of the newest day, MW", "short", {"MW": f"select reading_timestamp as time, sum(usage_kwh) * 4 / 1000 as mw from {READINGS} where {DAY} group by 1 order by 1"}),
            ("Load by segment, kW a meter", "short", {"": f"select reading_timestamp as time, customer_segment as metric, avg(usage_kwh) * 4 as kw from {READINGS} where {DAY} group by 1, 2 order by 1"}),
            ("Voltage, 1 % to 99 %", "volt", {"": f"select reading_timestamp as time, percentile_cont(0.01) within group (order by voltage) as low, percentile_cont(0.99) within group (order by voltage) as high from {READINGS} where {DAY} and not is_outage group by 1 order by 1"}),
            ("Meters without power", "short", {"out": f"select reading_timestamp as time, count(*) filter (where is_outage) as out from {READINGS} where {DAY} group by 1 order by 1"}),
            ("Quality", "short", {"": f"select data_quality, count(*) from {READINGS} where {DAY} group by 1"}),
            ("Heaviest transformers now, kW", "short", {"": "select transformer_id, sum(usage_kwh) * 4 as kw from ami_realtime group by 1 order by 2 desc limit 10"}),
        ],
    ),
}


def panel(number: int, title: str, unit: str, queries: dict[str, str], source: dict) -> dict:
    targets = []
    for index, (legend, query) in enumerate(queries.items()):
        target = {"refId": "ABCDEFGH"[index], "datasource": source}
        if source is PROMETHEUS:
            target |= {"expr": query, "legendFormat": legend or "__auto"}
        else:
            timed = " as time" in query
            target |= {"rawSql": query, "rawQuery": True, "format": "time_series" if timed else "table"}
        targets.append(target)
    table = source is POSTGRES and " as time" not in next(iter(queries.values()))
    return {
        "id": number + 1,
        "title": title,
        "type": "table" if table else "timeseries",
        "datasource": source,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {},
        "targets": targets,
    }


def dashboard(name: str) -> dict:
    title, panels = DASHBOARDS[name]
    source = POSTGRES if name == "fleet" else PROMETHEUS
    return {
        "id": None,
        "uid": f"flux-{name}",
        "title": title,
        "tags": ["flux"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-7d" if name == "fleet" else "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["flux"], "title": "Flux", "asDropdown": True}],
        "panels": [panel(number, *one, source) for number, one in enumerate(panels)],
    }


def main() -> None:
    folder = pathlib.Path(__file__).parent / "dashboards"
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(json.dumps(dashboard(name), indent=2) + "\n")


if __name__ == "__main__":
    main()
