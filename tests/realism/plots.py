"""Draws docs/realism.png: what the numbers of statistics_of_readings.py look like.

    plots.py FLUX OUT.png [--seed N]
"""

import argparse
import pathlib
import tempfile

import matplotlib

matplotlib.use("agg")
matplotlib.rcParams.update({"font.size": 8, "axes.grid": True, "grid.alpha": 0.3})

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from statistics_of_readings import START, Readings, coincidence, generate, lagged, run

HOURS = np.arange(96) / 4
MODELS = {"documented": "tab:gray", "utility": "tab:blue"}


def mean_days(axes, readings: Readings) -> None:
    seasons = {"Jan": [1], "Apr": [4], "Aug": [8]}
    for (segment, style), factor in zip(
        [("RESIDENTIAL", "-"), ("COMMERCIAL", "--"), ("INDUSTRIAL", ":")], (1, 5, 15)
    ):
        load = readings.of(segment).mean(axis=0) * 4 / factor
        for (season, months), colour in zip(seasons.items(), ("tab:blue", "tab:green", "tab:red")):
            chosen = np.isin(readings.month, months)
            day = np.bincount(readings.slot[chosen], load[chosen]) / np.bincount(readings.slot[chosen])
            axes.plot(HOURS, day, style, color=colour, label=f"{segment[:3]} {season}")
    axes.set(title="mean day, utility (COM / 5, IND / 15)", xlabel="civil hour", ylabel="kW", xlim=(0, 24))
    axes.legend(fontsize=5, ncol=3)


def load_duration(axes, model: str, readings: Readings) -> None:
    total = np.sort(readings.homes.sum(axis=0))[::-1]
    axes.plot(np.linspace(0, 100, len(total)), total / total.mean(), color=MODELS[model], label=model)
    axes.set(title="load duration, all homes", xlabel="% of the year", ylabel="of the mean")
    axes.legend(fontsize=6)


def autocorrelation(axes, model: str, readings: Readings) -> None:
    lags = np.arange(1, 193, 2)
    curve = [np.median([lagged(home, int(lag)) for home in readings.homes[:60]]) for lag in lags]
    axes.plot(lags / 4, curve, color=MODELS[model], label=model)
    axes.set(title="autocorrelation, median of 60 homes", xlabel="lag, hours", ylim=(-0.5, 1))
    axes.legend(fontsize=6)


def coincidence_curve(axes, model: str, readings: Readings) -> None:
    draws = np.random.default_rng(1)
    sizes = [2, 5, 10, 20, 50, 100, 200]
    curve = [1.0] + [coincidence(readings.homes, size, draws) for size in sizes]
    axes.semilogx([1, *sizes], curve, "o-", markersize=3, color=MODELS[model], label=model)
    axes.set(title="coincidence of homes", xlabel="homes", ylim=(0, 1.05))
    axes.legend(fontsize=6)


def voltage_against_load(axes, readings: Readings) -> None:
    homes = readings.segment == "RESIDENTIAL"
    total = readings.homes.sum(axis=0) * 4 / homes.sum()
    step = slice(None, None, 7)
    volts = np.where(readings.out, np.nan, readings.volts)[homes]
    axes.scatter(total[step], np.nanmean(volts, axis=0)[step], s=1, alpha=0.2, label="mean of the homes")
    axes.scatter(total[step], volts[0][step], s=1, alpha=0.2, label="one home")
    axes.set(title="voltage against load, utility", xlabel="kW a home", ylabel="V")
    axes.legend(fontsize=6)


def arrivals(axes, flux: str, seed: int) -> None:
    for pattern in ("uniform", "staggered", "partial", "degraded"):
        text = run(
            [flux, "preview", "--json", "--rows", "20000", "--seed", str(seed), "--meters", "20000", "--days", "1"]
            + ["--start", str(START), "--pattern", pattern]
        )
        frame = pl.read_ndjson(text.encode()).with_columns(
            pl.col("ARRIVAL", "READING_TIMESTAMP").str.to_datetime(time_zone="UTC")
        )
        frame = frame.filter(pl.col("READING_TIMESTAMP") == pl.col("READING_TIMESTAMP").min())
        offset = (frame["ARRIVAL"] - frame["READING_TIMESTAMP"]).dt.total_milliseconds().to_numpy() / 1000 - 900
        axes.hist(offset, bins=60, range=(0, 900), histtype="step", label=pattern)
    axes.set(title="arrival after the interval's end", xlabel="s", ylabel="readings, 20,000 meters", yscale="log")
    axes.legend(fontsize=6)


def restoration(axes, flux: str, folder: pathlib.Path, seed: int) -> None:
    """Customers without power after the shipped storms, share of those of the worst moment."""
    for scenario, days in (("summer-storm", 5), ("hurricane", 12)):
        out = folder / scenario
        # With outage rows in line, whatever the scenario says: a row for every interval.
        generate(flux, out, seed, "documented", 20_000, days, "--scenario", scenario)
        frame = pl.scan_parquet(out / "dt=*" / "readings.parquet").filter(pl.col("is_outage"))
        share = frame.group_by("reading_timestamp").len().sort("reading_timestamp").collect()
        hours = (share["reading_timestamp"] - share["reading_timestamp"][0]).dt.total_minutes().to_numpy() / 60
        customers = share["len"].to_numpy() / 20_000
        worst = int(np.argmax(customers))
        axes.plot(hours[worst:] - hours[worst], customers[worst:] * 100, label=scenario)
    axes.plot([24, 108, 216], [72 * 0.78, 30 * 0.78, 2], "x", color="black", label="Beryl, July 2024")
    axes.set(title="without power after a storm", xlabel="hours after the worst moment", ylabel="% of customers")
    axes.legend(fontsize=6)


def lateness(axes, flux: str, folder: pathlib.Path, seed: int) -> None:
    for pattern in ("partial", "degraded"):
        out = folder / f"late-{pattern}"
        generate(flux, out, seed, "documented", 1_000, 8, "--pattern", pattern, "--backfill", "on", "--wide")
        frame = pl.read_parquet(
            out / "dt=*" / "readings.parquet", columns=["reading_timestamp", "hes_received_at", "revision"]
        )
        delay = (frame["hes_received_at"] - frame["reading_timestamp"]).dt.total_milliseconds().to_numpy() / 3.6e6
        delay = np.sort(delay - 0.25)
        axes.semilogx(np.maximum(delay, 1e-3), 100 * (1 - np.arange(len(delay)) / len(delay)), label=pattern)
    axes.set(title="rows that arrive later than", xlabel="hours after the interval's end", ylabel="% of rows")
    axes.set(yscale="log", ylim=(0.01, 110))
    axes.legend(fontsize=6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("flux")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), constrained_layout=True)
    with tempfile.TemporaryDirectory() as temporary:
        for model in MODELS:
            folder = pathlib.Path(temporary) / model
            generate(arguments.flux, folder, arguments.seed, model, 500, 365)
            readings = Readings(folder)
            load_duration(axes[0][1], model, readings)
            autocorrelation(axes[0][2], model, readings)
            coincidence_curve(axes[1][0], model, readings)
        restoration(axes[0][3], arguments.flux, pathlib.Path(temporary), arguments.seed)
        lateness(axes[1][3], arguments.flux, pathlib.Path(temporary), arguments.seed)
    mean_days(axes[0][0], readings)
    voltage_against_load(axes[1][1], readings)
    arrivals(axes[1][2], arguments.flux, arguments.seed)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
