//! Table shapes: PostgreSQL and Parquet.

/// Columns of `ami_interval_readings`, in COPY order: the eleven of the schema in lower case, then where the row came from.
pub const HISTORY_COLUMNS: [&str; 14] = [
    "meter_id",
    "reading_timestamp",
    "usage_kwh",
    "voltage",
    "transformer_id",
    "circuit_id",
    "substation_id",
    "customer_segment",
    "service_area",
    "is_outage",
    "data_quality",
    "run_id",
    "kafka_partition",
    "kafka_offset",
];

/// Parquet schema of the bronze objects; columns in the order of [`HISTORY_COLUMNS`].
pub const PARQUET_SCHEMA: &str = "message ami_reading {
    required binary meter_id (STRING);
    required int64 reading_timestamp (TIMESTAMP(MILLIS, true));
    required double usage_kwh;
    required double voltage;
    required binary transformer_id (STRING);
    required binary circuit_id (STRING);
    required binary substation_id (STRING);
    required binary customer_segment (STRING);
    required binary service_area (STRING);
    required boolean is_outage;
    required binary data_quality (STRING);
    required binary run_id (STRING);
    required int32 kafka_partition;
    required int64 kafka_offset;
}";
