"""Statistics of emitted readings against bounds from real and independent load data.

Emits through the public command line, reads the files with Polars, and shares no code with the generator. Prints a
table (statistic, bound, documented, utility) and exits 1 where `utility` leaves a bound, or `documented` one that it
must keep. The bounds and what they rest on: docs/realism.md.

    statistics_of_readings.py FLUX [--seed N] [--keep DIR]
"""

import argparse
import datetime
import math
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import polars as pl

START = datetime.date(2025, 1, 1)
DAYS = 365
SLOTS = 96


class Readings:
    """One emitted year: matrices of meter by interval, civil time beside them."""

    def __init__(self, folder: pathlib.Path):
        frame = pl.read_parquet(folder / "dt=*" / "readings.parquet").sort("meter_id", "reading_timestamp")
        self.meters = frame.select("meter_id").unique(maintain_order=True).height
        shape = (self.meters, frame.height // self.meters)
        self.kwh = frame["usage_kwh"].to_numpy().reshape(shape)
        self.volts = frame["voltage"].to_numpy().reshape(shape)
        self.out = frame["is_outage"].to_numpy().reshape(shape)
        self.quality = frame["data_quality"].to_numpy().reshape(shape)
        first = frame.unique("meter_id", keep="first", maintain_order=True)
        self.segment = first["customer_segment"].to_numpy()
        self.transformer = first["transformer_id"].to_numpy()
        self.circuit = first["circuit_id"].to_numpy()
        time = frame.head(shape[1]).select(
            pl.col("reading_timestamp").dt.convert_time_zone("America/Chicago").alias("t")
        )["t"]
        self.slot = (time.dt.hour().to_numpy().astype(int) * 60 + time.dt.minute().to_numpy()) // 15
        self.weekend = time.dt.weekday().to_numpy() >= 6
        self.month = time.dt.month().to_numpy()
        self.homes = self.kwh[self.segment == "RESIDENTIAL"]

    def of(self, segment: str) -> np.ndarray:
        return self.kwh[self.segment == segment]


def median(values) -> float:
    return float(np.nanmedian(np.asarray(list(values), dtype=float)))


def lagged(series: np.ndarray, lag: int) -> float:
    series = series - series.mean()
    return float((series[:-lag] * series[lag:]).sum() / (series * series).sum())


def moments(series: np.ndarray) -> tuple[float, float]:
    centred = series - series.mean()
    spread = centred.std()
    return float((centred**3).mean() / spread**3), float((centred**4).mean() / spread**4 - 3)


def slot_means(readings: Readings, series: np.ndarray) -> np.ndarray:
    """The mean of the series' own (slot, weekend) class, for every interval."""
    classes = readings.slot * 2 + readings.weekend
    sums = np.bincount(classes, series, minlength=2 * SLOTS)
    return (sums / np.maximum(np.bincount(classes, minlength=2 * SLOTS), 1))[classes]


def daily(matrix: np.ndarray) -> np.ndarray:
    return matrix.reshape(matrix.shape[0], -1, SLOTS).sum(axis=2)


def coincidence(homes: np.ndarray, size: int, draws: np.random.Generator) -> float:
    peaks = homes.max(axis=1)

    def one() -> float:
        group = draws.choice(len(homes), size, replace=False)
        return homes[group].sum(axis=0).max() / peaks[group].sum()

    return median(one() for _ in range(40))


def temperature_of_houston(month: np.ndarray) -> np.ndarray:
    """Monthly normal daily means, degrees Celsius (Houston Intercontinental 1991-2020)."""
    normals = [12.1, 14.3, 17.8, 21.1, 25.2, 28.4, 29.4, 29.5, 26.9, 22.2, 16.7, 13.1]
    return np.array(normals)[month - 1]


def load(readings: Readings, seed: int) -> dict[str, float]:
    homes = readings.homes
    draws = np.random.default_rng(seed)
    found = {}
    found["1 load factor"] = median(homes.mean(axis=1) / homes.max(axis=1))
    shape = [moments(home) for home in homes]
    found["2 skewness"] = median(skew for skew, _ in shape)
    found["3 excess kurtosis"] = median(kurtosis for _, kurtosis in shape)
    found["4 max/mean"] = median(homes.max(axis=1) / homes.mean(axis=1))
    found["5 lag-1"] = median(lagged(home, 1) for home in homes)
    residuals = [home - slot_means(readings, home) for home in homes]
    found["6 lag-1 of residual"] = median(lagged(residual, 1) for residual in residuals)
    found["7 lag-4 of residual"] = median(lagged(residual, 4) for residual in residuals)
    found["8 R2 of slot"] = median(1 - residual.var() / home.var() for home, residual in zip(homes, residuals))
    days = daily(homes)
    found["9 CV of daily kWh"] = median(days.std(axis=1) / days.mean(axis=1))
    found["10 lag-1 of daily kWh"] = median(lagged(day, 1) for day in days)
    year = homes.sum(axis=1)
    found["11a CV of annual kWh"] = float(year.std() / year.mean())
    found["11b skew of ln annual"] = abs(moments(np.log(year))[0])
    found["12 kWh a month"] = float(year.mean() / 12)
    total = homes.sum(axis=0)
    # An outage of a circuit, and the pick-up after it, are steps of their own.
    out = readings.out[readings.segment == "RESIDENTIAL"].mean(axis=0) > 0.005
    near = np.convolve(out, np.ones(16), "full")[2 : len(out) + 2] > 0
    steps = np.abs(np.diff(total))[~(near[1:] | near[:-1])]
    found["13 largest step of aggregate"] = float(steps.max() / total.mean())
    found["14 lag-1 of aggregate"] = lagged(total, 1)
    sizes = [1, 2, 5, 10, 20, 50, 100]
    curve = [1.0] + [coincidence(homes, size, draws) for size in sizes[1:]]
    found["15 coincidence of 5"] = curve[2]
    found["16 coincidence of 100"] = curve[6]
    found["17a coincidence of 2"] = curve[1]
    found["17b coincidence falls"] = max(later - earlier for earlier, later in zip(curve, curve[1:]))
    fleet_days = daily(total[None, :])[0]
    months = readings.month.reshape(-1, SLOTS)[:, 48]
    warm = temperature_of_houston(months) > 20
    # Eleven columns hold no temperature: two halves of the homes have nothing but the weather in common.
    half = np.arange(len(homes)) % 2 == 0
    first, second = (daily(homes[part].sum(axis=0)[None, :])[0][warm] for part in (half, ~half))
    found["18 homes share the weather"] = float(np.corrcoef(first, second)[0, 1])
    monthly = np.array([fleet_days[months == month].mean() for month in range(1, 13)])
    found["19 max/min month of homes together"] = float(monthly.max() / monthly.min())
    found["20 CV of daily kWh of homes together"] = float(fleet_days.std() / fleet_days.mean())
    weekend = readings.weekend.reshape(-1, SLOTS)[:, 48]
    for segment, name in [("RESIDENTIAL", "21a"), ("COMMERCIAL", "21b"), ("INDUSTRIAL", "21c")]:
        days = daily(readings.of(segment))
        found[f"{name} weekend/weekday {segment[:3]}"] = median(
            days[:, weekend].mean(axis=1) / days[:, ~weekend].mean(axis=1)
        )
    shops = readings.of("COMMERCIAL")
    found["22a load factor COM"] = median(shops.mean(axis=1) / shops.max(axis=1))
    found["22b lag-1 COM"] = median(lagged(shop, 1) for shop in shops)
    found["22c lag-672 COM"] = median(lagged(shop, 672) for shop in shops)
    shares = [float((readings.segment == name).mean()) for name in ("RESIDENTIAL", "COMMERCIAL", "INDUSTRIAL")]
    found["23a segment shares off by"] = max(abs(share - said) for share, said in zip(shares, (0.7, 0.2, 0.1)))
    found["23b COM/RES"] = float(shops.mean() / homes.mean())
    found["23c IND/RES"] = float(readings.of("INDUSTRIAL").mean() / homes.mean())
    by_slot = np.bincount(readings.slot, readings.kwh.sum(axis=0)) / np.bincount(readings.slot)
    found["peak hour of the fleet"] = float(np.argmax(by_slot) / 4)
    return found


def voltage(readings: Readings, seed: int) -> dict[str, float]:
    draws = np.random.default_rng(seed)
    volts = np.where(readings.out, np.nan, readings.volts)
    homes = np.flatnonzero(readings.segment == "RESIDENTIAL")
    found = {
        "24a mean voltage": float(np.nanmean(volts)),
        "24b sd of voltage": float(np.nanstd(volts)),
        "24c share in 114-126 V": float(np.nanmean((volts >= 114) & (volts <= 126) | np.isnan(volts))),
    }
    filled = np.where(np.isnan(volts), np.nanmean(volts, axis=1, keepdims=True), volts)
    found["24d lag-1 of voltage"] = median(lagged(filled[meter], 1) for meter in homes)
    found["25a corr(V, own kW)"] = median(np.corrcoef(filled[meter], readings.kwh[meter])[0, 1] for meter in homes)
    totals = {name: readings.kwh[readings.circuit == name].sum(axis=0) for name in set(readings.circuit)}
    found["25b corr(V, circuit kW)"] = median(
        np.corrcoef(filled[meter], totals[readings.circuit[meter]])[0, 1] for meter in homes
    )
    residual = filled - filled.mean(axis=1, keepdims=True)
    common = residual.mean(axis=0)
    residual = residual - common
    pairs = [tuple(draws.choice(homes, 2, replace=False)) for _ in range(4000)]
    same, other = [], []
    for one, two in pairs:
        together = readings.transformer[one] == readings.transformer[two]
        (same if together else other).append((one, two))
    for name in set(readings.transformer[homes]):
        members = homes[readings.transformer[homes] == name]
        if len(members) > 1:
            same.append((members[0], members[1]))
    correlation = lambda group: median(np.corrcoef(residual[one], residual[two])[0, 1] for one, two in group[:400])
    found["26 same less other transformer"] = correlation(same) - correlation(other)
    found["29 outage rows not as said"] = float(
        (readings.out != (readings.quality == "OUTAGE")).sum()
        + (readings.out & ((readings.kwh != 0) | (readings.volts >= 1))).sum()
    )
    return found


def outages(folder: pathlib.Path) -> dict[str, float]:
    """Indices of IEEE 1366 over a year of a large fleet, from the rows that say outage."""
    rows = (
        pl.scan_parquet(folder / "dt=*" / "readings.parquet")
        .filter(pl.col("is_outage"))
        .select("meter_id", "transformer_id", "reading_timestamp")
        .collect()
        .sort("meter_id", "reading_timestamp")
    )
    meters = (
        pl.read_parquet(folder / f"dt={START + datetime.timedelta(days=1)}" / "readings.parquet")
        .unique("meter_id")
        .select("meter_id", "transformer_id")
    )
    step = pl.duration(minutes=15)
    follows = (pl.col("reading_timestamp") - pl.col("reading_timestamp").shift(1)).over("meter_id") == step
    rows = rows.with_columns(begins=~follows.fill_null(False))
    interruptions = int(rows["begins"].sum())
    found = {
        "27a SAIFI": interruptions / meters.height,
        "27b SAIDI minutes": rows.height * 15 / meters.height,
        "27c CAIDI minutes": rows.height * 15 / max(interruptions, 1),
        "28a still out": 1 - interruptions / rows.height,
    }
    sizes = meters.group_by("transformer_id").len()
    together = rows.group_by("transformer_id", "reading_timestamp").len("out").join(sizes, on="transformer_id")
    together = together.filter(pl.col("len") > 1)
    out, size = together["out"].to_numpy(), together["len"].to_numpy()
    found["28b neighbour out too"] = float((out * (out - 1)).sum() / (out * (size - 1)).sum())
    return found


def reporting(flux: str, folder: pathlib.Path, seed: int) -> dict[str, float]:
    """Who reports under each pattern, over three days of 10,000 meters."""
    found = {}
    for pattern in ("uniform", "staggered", "partial", "degraded"):
        out = folder / pattern
        generate(flux, out, seed, "documented", 10_000, 3, "--pattern", pattern)
        frame = pl.read_parquet(out / "dt=*" / "readings.parquet", columns=["meter_id", "reading_timestamp"])
        expected = 10_000 * 3 * SLOTS
        found[f"30a share {pattern}"] = frame.height / expected
        found[f"32 twice {pattern}"] = float(frame.height - frame.unique().height)
        if pattern == "partial":
            counts = frame.group_by("meter_id").len()["len"].to_numpy()
            lost = np.sort(3 * SLOTS - np.concatenate([counts, np.zeros(10_000 - len(counts), int)]))[::-1]
            found["30b loss of the worst 2 %"] = float(lost[:200].sum() / lost.sum())
            frame = frame.sort("meter_id", "reading_timestamp").with_columns(
                gap=(pl.col("reading_timestamp").diff().over("meter_id").dt.total_minutes() // 15 - 1)
            )
            gaps = frame.filter(pl.col("gap") > 0)["gap"].to_numpy()
            found["30c mean run of a gap"] = float(gaps.mean())
    return found


def arrivals(flux: str, seed: int) -> dict[str, float]:
    """Offsets of arrivals in their interval, from the preview of 20,000 meters over two intervals."""
    found = {}
    for pattern in ("uniform", "staggered"):
        text = run(
            [flux, "preview", "--json", "--rows", "40000", "--seed", str(seed), "--meters", "20000", "--days", "1"]
            + ["--start", str(START), "--pattern", pattern]
        )
        frame = pl.read_ndjson(text.encode()).with_columns(
            pl.col("ARRIVAL", "READING_TIMESTAMP").str.to_datetime(time_zone="UTC")
        )
        frame = frame.with_columns(
            offset=(pl.col("ARRIVAL") - pl.col("READING_TIMESTAMP")).dt.total_milliseconds() / 1000 - 900
        )
        offsets = np.sort(frame["offset"].to_numpy())
        if pattern == "uniform":
            found["31a uniform p99, s"] = float(np.quantile(offsets, 0.99))
        else:
            grid = np.arange(1, len(offsets) + 1) / len(offsets)
            found["31b staggered KS"] = float(np.abs(grid - offsets / 900).max())
            spread = frame.group_by("METER_ID").agg(pl.col("offset").max() - pl.col("offset").min())["offset"]
            found["31c staggered spread of a meter, s"] = float(spread.mean())
    return found


def wide(flux: str, folder: pathlib.Path, seed: int, readings: Readings) -> dict[str, float]:
    """What needs the wide columns: the weather, the register, revisions and copies."""
    # The weather follows from seed and area alone: ten meters have that of all.
    generate(flux, folder / "wide", seed, "utility", 10, DAYS, "--wide")
    frame = pl.read_parquet(folder / "wide" / "dt=*" / "readings.parquet").sort("meter_id", "reading_timestamp")
    frame = frame.with_columns(
        grown=pl.col("register_kwh").diff().over("meter_id"),
    )
    # A register of five digits begins again at zero.
    off = frame.filter(pl.col("grown").is_not_null()).select(
        ((pl.col("grown") - pl.col("usage_kwh") + 50_000).mod(100_000) - 50_000).abs().max()
    )
    one = frame.filter(pl.col("meter_id") == frame["meter_id"][0])
    degrees = one["temperature_c"].to_numpy()[: DAYS * SLOTS].reshape(-1, SLOTS).mean(axis=1)
    days = daily(readings.homes.sum(axis=0)[None, :])[0]
    warm = degrees > 20
    found = {
        "18 corr(kWh, temperature) above 20 C": float(np.corrcoef(days[warm], degrees[warm])[0, 1]),
        "33 register less intervals, kWh": float(off.item()),
    }
    rates = {"partial": 0.002, "degraded": 0.01}
    for pattern, rate in rates.items():
        out = folder / f"late-{pattern}"
        more = ["--pattern", pattern, "--backfill", "on", "--duplicates", "realistic", "--wide"]
        generate(flux, out, seed, "documented", 2_000, 10, *more)
        columns = ["meter_id", "reading_timestamp", "reading_id", "revision"]
        frame = pl.read_parquet(out / "dt=*" / "readings.parquet", columns=columns)
        once = frame.unique("reading_id")
        found[f"32a copies over rate {pattern}"] = (frame.height - once.height) / frame.height / rate
        key = ["meter_id", "reading_timestamp", "revision"]
        found[f"32b twice after dedupe {pattern}"] = float(once.height - once.unique(key).height)
        whole = once.unique(["meter_id", "reading_timestamp"]).group_by("meter_id").len()
        found[f"32c meters without gaps {pattern}"] = float((whole["len"] == 10 * SLOTS).sum() / 2_000)
    return found


# Statistic: lowest, highest, whether `documented` must keep it too.
BOUNDS: dict[str, tuple[float, float, bool]] = {
    "1 load factor": (0.05, 0.25, False),
    "2 skewness": (1.2, 6, False),
    "3 excess kurtosis": (2, 60, False),
    "4 max/mean": (4.5, 25, False),
    "5 lag-1": (0.55, 0.93, True),
    "6 lag-1 of residual": (0.45, 0.92, True),
    "7 lag-4 of residual": (0.08, 0.80, True),
    "8 R2 of slot": (0.05, 0.50, False),
    "9 CV of daily kWh": (0.12, 0.80, False),
    "10 lag-1 of daily kWh": (0.20, 0.97, True),
    "11a CV of annual kWh": (0.35, 0.85, False),
    "11b skew of ln annual": (0, 1, True),
    "12 kWh a month": (900, 1350, False),
    "13 largest step of aggregate": (0, 0.20, False),
    "14 lag-1 of aggregate": (0.94, 1, False),
    "15 coincidence of 5": (0.38, 0.70, False),
    "16 coincidence of 100": (0.18, 0.55, False),
    "17a coincidence of 2": (0, 0.90, False),
    "17b coincidence falls": (-1, 0, False),
    "18 homes share the weather": (0.70, 1, True),
    "18 corr(kWh, temperature) above 20 C": (0.70, 1, True),
    "19 max/min month of homes together": (1.3, 2.6, False),
    "20 CV of daily kWh of homes together": (0.08, 0.45, False),
    "21a weekend/weekday RES": (0.70, 1.30, True),
    "21b weekend/weekday COM": (0.55, 0.97, False),
    "21c weekend/weekday IND": (0.40, 0.95, False),
    "22a load factor COM": (0.20, 0.70, False),
    "22b lag-1 COM": (0.85, 1, False),
    "22c lag-672 COM": (0.55, 1, False),
    "23a segment shares off by": (0, 0.005, True),
    "23b COM/RES": (4.5, 5.5, True),
    "23c IND/RES": (13.5, 16.5, True),
    "peak hour of the fleet": (14, 19, True),
    "24a mean voltage": (119.5, 123.5, True),
    "24b sd of voltage": (0.6, 2.5, True),
    "24c share in 114-126 V": (0.99, 1, True),
    "24d lag-1 of voltage": (0.6, 1, True),
    "25a corr(V, own kW)": (-1, -0.15, True),
    "25b corr(V, circuit kW)": (-1, -0.30, True),
    "26 same less other transformer": (0.10, 2, True),
    "27a SAIFI": (0.8, 1.5, True),
    "27b SAIDI minutes": (80, 180, True),
    "27c CAIDI minutes": (80, 160, True),
    "28a still out": (0.70, 1, True),
    "28b neighbour out too": (0.80, 1, True),
    "29 outage rows not as said": (0, 0, True),
    "30a share uniform": (0.997, 1, True),
    "30a share staggered": (0.997, 1, True),
    "30a share partial": (0.975, 0.985, True),
    "30a share degraded": (0.835, 0.865, True),
    "30b loss of the worst 2 %": (0.30, 1, True),
    "30c mean run of a gap": (4, 1000, True),
    "31a uniform p99, s": (0, 5, True),
    "31b staggered KS": (0, 0.02, True),
    "31c staggered spread of a meter, s": (0, 15, True),
    "32 twice uniform": (0, 0, True),
    "32 twice staggered": (0, 0, True),
    "32 twice partial": (0, 0, True),
    "32 twice degraded": (0, 0, True),
    "32a copies over rate partial": (0.5, 1.5, True),
    "32a copies over rate degraded": (0.5, 1.5, True),
    "32b twice after dedupe partial": (0, 0, True),
    "32b twice after dedupe degraded": (0, 0, True),
    "32c meters without gaps partial": (0.995, 1, True),
    "32c meters without gaps degraded": (0.995, 1, True),
    "33 register less intervals, kWh": (0, 0.01, True),
}


def run(command: list[str]) -> str:
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {outcome.returncode}\n{outcome.stderr}")
    return outcome.stdout


def generate(
    flux: str, out: pathlib.Path, seed: int, model: str, meters: int, days: int, *more: str, start: datetime.date = START
) -> None:
    arguments = ["--seed", seed, "--model", model, "--meters", meters, "--days", days, "--start", start, "--out", out]
    run([flux, "generate", *map(str, arguments), *more])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("flux")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    flux, seed = arguments.flux, arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or pathlib.Path(temporary)
        found: dict[str, dict[str, float]] = {"documented": {}, "utility": {}}
        for model in found:
            generate(flux, folder / model, seed, model, 500, DAYS)
            readings = Readings(folder / model)
            found[model] |= load(readings, seed) | voltage(readings, seed)
            if model == "utility":
                shared_wide = wide(flux, folder, seed, readings)
            # Segment means are of few customers of very different sizes: they need a larger fleet, and a week of each
            # season stands for the year.
            weeks = []
            for month in (1, 4, 7, 10):
                out = folder / f"{model}-week-{month}"
                generate(flux, out, seed, model, 20_000, 7, start=datetime.date(2025, month, 9))
                weeks.append(
                    pl.scan_parquet(out / "dt=*" / "readings.parquet")
                    .group_by("customer_segment")
                    .agg(pl.col("usage_kwh").mean())
                    .collect()
                )
            means = dict(pl.concat(weeks).group_by("customer_segment").agg(pl.col("usage_kwh").mean()).iter_rows())
            found[model]["23b COM/RES"] = means["COMMERCIAL"] / means["RESIDENTIAL"]
            found[model]["23c IND/RES"] = means["INDUSTRIAL"] / means["RESIDENTIAL"]
        generate(flux, folder / "year", seed, "documented", 20_000, DAYS)
        shared = outages(folder / "year") | reporting(flux, folder, seed) | arrivals(flux, seed)
        for model in found:
            found[model] |= shared | shared_wide
    failed = []
    print(f"{'statistic':<36} {'bound':>17} {'documented':>12} {'utility':>12}")
    for name, (low, high, both) in BOUNDS.items():
        marks = {}
        for model, values in found.items():
            inside = low <= values[name] <= high and not math.isnan(values[name])
            must = both or model == "utility"
            marks[model] = f"{values[name]:>11.3f}{' ' if inside else '!' if must else '-'}"
            if must and not inside:
                failed.append(f"{name} of {model}: {values[name]:.4f} is not in {low} to {high}")
        print(f"{name:<36} {f'{low:g} to {high:g}':>17} {marks['documented']} {marks['utility']}")
    print("-: left by design of the documented ranges; !: left where it must be kept")
    for line in failed:
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
