"""Prints the figures of google-benchmark JSON files as one table with ratios against rows of the same run."""

import argparse
import json
import re


def baseline_of(name: str) -> str:
    """The row that a row is compared with: the same with one thing changed, or nothing."""
    for changed, plain in (("bfloat16", "float32"), ("threads:2", "threads:1"), ("loader_batch", "store_read"),
                           ("muon", "adamw"), ("asynchronous", "synchronous")):
        if changed in name:
            return name.replace(changed, plain)
    return ""


def rate_of(row: dict) -> tuple[float, str]:
    """The row's counter that is a rate ("frames/s"), else 0."""
    for key, value in row.items():
        if isinstance(value, float) and key.endswith("/s"):
            return value, key
    return 0.0, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--json", help="also write the raw figures here")
    arguments = parser.parse_args()
    raw, rows = {}, {}
    for path in arguments.files:
        with open(path, encoding="utf-8") as file:
            program = re.sub(r".*/|\.json$", "", path)
            raw[program] = json.load(file)
        for row in raw[program]["benchmarks"]:
            if row.get("error_occurred"):
                print(f"left out: {row['name']}: {row['error_message']}")
            elif row.get("run_type", "iteration") == "iteration":
                rows[row["name"].replace("/real_time", "").replace("/min_time:1.000", "")] = row
    width = max(map(len, rows), default=10)
    print(f"{'benchmark':<{width}}  {'ms':>9}  {'rate':>22}  ratio of times")
    scale = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
    for name, row in rows.items():
        rate, unit = rate_of(row)
        other = baseline_of(name)
        ratio = ""
        if other in rows:
            one, two = (r["real_time"] * scale[r["time_unit"]] for r in (row, rows[other]))
            ratio = f"{one / two:.2f} x {other}"
        shown = f"{rate:,.0f} {unit}" if rate else ""
        print(f"{name:<{width}}  {row['real_time'] * scale[row['time_unit']]:>9.2f}  {shown:>22}  {ratio}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(raw, file, indent=1)


if __name__ == "__main__":
    main()
