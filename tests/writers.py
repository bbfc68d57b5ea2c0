"""How libraries write a table of texts and labels: by name, the ending of the file and what writes it."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq


def by_csv(quoting: int, **how: Any) -> Callable[[pd.DataFrame, Path], None]:
    def write(table: pd.DataFrame, path: Path) -> None:
        with path.open("w", newline="", encoding=how.get("encoding", "utf-8")) as stream:
            writer = csv.writer(stream, quoting=quoting, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([list(table), *table.itertuples(index=False)])

    return write


def arrow(table: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(table, preserve_index=False)


def data_set(table: pd.DataFrame) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_dict(table.to_dict("list"))


def frame(table: pd.DataFrame) -> Any:
    import polars

    return polars.DataFrame(table.to_dict("list"))


WRITERS: dict[str, tuple[str, Callable[[pd.DataFrame, Path], Any]]] = {
    "csv": (".csv", by_csv(csv.QUOTE_MINIMAL)),
    "csv with all quotes and a BOM": (".csv", by_csv(csv.QUOTE_ALL, encoding="utf-8-sig")),
    "csv with tabs": (".tsv", by_csv(csv.QUOTE_MINIMAL)),
    "json": (".json", lambda table, path: path.write_text(json.dumps(table.to_dict("records"), indent=1))),
    "json lines": (".jsonl", lambda table, path: path.write_text("\n".join(map(json.dumps, table.to_dict("records"))))),
    "pandas csv": (".csv", lambda table, path: table.to_csv(path, index=False)),
    "pandas tsv": (".tsv", lambda table, path: table.to_csv(path, index=False, sep="\t")),
    "pandas json": (".json", lambda table, path: table.to_json(path, orient="records")),
    "pandas json lines": (".jsonl", lambda table, path: table.to_json(path, orient="records", lines=True)),
    "pandas parquet": (".parquet", lambda table, path: table.to_parquet(path)),
    "pandas feather": (".feather", lambda table, path: table.to_feather(path)),
    "pandas categories": (".parquet", lambda table, path: table.astype("category").to_parquet(path)),
    "arrow csv": (".csv", lambda table, path: pa.csv.write_csv(arrow(table), path)),
    "arrow parquet": (".parquet", lambda table, path: pq.write_table(arrow(table), path)),
    "datasets csv": (".csv", lambda table, path: data_set(table).to_csv(path)),
    "datasets json": (".jsonl", lambda table, path: data_set(table).to_json(path)),
    "datasets parquet": (".parquet", lambda table, path: data_set(table).to_parquet(path)),
}
if importlib.util.find_spec("polars"):
    WRITERS |= {
        "polars csv": (".csv", lambda table, path: frame(table).write_csv(path)),
        "polars json": (".json", lambda table, path: frame(table).write_json(path)),
        "polars json lines": (".jsonl", lambda table, path: frame(table).write_ndjson(path)),
        "polars parquet": (".parquet", lambda table, path: frame(table).write_parquet(path)),
        "polars feather": (".feather", lambda table, path: frame(table).write_ipc(path)),
    }
