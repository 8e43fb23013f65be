"""Make the page of the zoo: what converts wholly, what does not and why."""

from __future__ import annotations

from pathlib import Path

from bench import rows
from bench.rows import Row
from entprop_fast.lab.report.text import markdown, markdown_table

NAME = "zoo"  # of rows, and of the part of the page
EXACT = 1e-4  # of the largest output: another order of summation, through a whole network
METHODS = ("entprop", "entprop_pipelined")


def complaint(row: Row) -> str:
    """Say what is not right about a network; empty where all is, or where it has no norm."""
    if failed := row.get("failed"):
        return str(failed)
    if not row["norms"]:
        return ""
    found = [f"left: {count} {name}" for name, count in _left(row).items()]
    found += [f"{name}: {row[name]}" for name in METHODS if row[name]]
    if row["difference"] != 0:
        found.append(f"converted, its outputs differ by {row['difference']}")
    if row["stripped"] != 0:
        found.append(f"stripped, its outputs differ by {row['stripped']}")
    fused = row.get("fused_difference", 0.0)
    if fused is None or not fused <= EXACT:  # null in the rows is NaN
        found.append(f"fused, its outputs differ by {fused}")
    return "; ".join(found)


def _left(row: Row) -> dict[str, str]:
    """Return the norms left over, but for those of classes that were asked for with `also`."""
    return {name: count for name, count in row["left"].items() if name not in row.get("also", ())}


def converts_wholly(row: Row) -> bool:
    """Return whether every norm of a network has an auxiliary half without `also`."""
    return not row.get("failed") and bool(row["norms"]) and not row["left"]


def summary(found: list[Row]) -> str:
    """Write the sentence that counts."""
    with_norm = [row for row in found if row.get("failed") or row["norms"]]
    wholly = sum(map(converts_wholly, with_norm))
    asked = sum(bool(not row.get("failed") and row["left"] and not _left(row)) for row in with_norm)
    families = len({row["family"] for row in found if row["network"].startswith("timm:")})
    sentence = (
        f"**{len(found)} networks** were tried: {_count(found, 'timm')} of timm's, from all of its "
        f"{families} family modules, and all {_count(found, 'torchvision')} classifiers of "
        f"torchvision. {len(with_norm)} of them have a norm; **{wholly} convert wholly "
        f"({100 * wholly / max(len(with_norm), 1):.1f} %)**"
    )
    return sentence + (f", and {asked} more with `also=`." if asked else ".")


def _count(found: list[Row], library: str) -> int:
    return sum(row["network"].startswith(f"{library}:") for row in found)


def exceptions(found: list[Row]) -> str:
    """Write the table of the networks with which something is not right, or which need `also`."""
    lines = [["network", "norms", "converted", "reason"]]
    for row in found:
        why = complaint(row)
        if asked := row.get("also"):
            why = "; ".join(filter(None, (f"with `also=({', '.join(asked)},)`: all", why)))
        if why:
            name = f"`{row['network']}`"
            counts = [str(row.get(key, "")) for key in ("norms", "converted")]
            lines.append([name, *counts, why if asked else markdown(why)])
    return markdown_table(lines, escaped=True)


def by_family(found: list[Row]) -> str:
    """Write a line for each family: its networks, and what holds for all of them."""
    head = ["family", "networks (pixels)", "norms", "converted", "eval identical"]
    lines = [[*head, *METHODS, "stripped identical", "fused"]]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        if not row.get("failed"):
            library = row["network"].partition(":")[0]
            groups.setdefault((library, row["family"]), []).append(row)
    for (library, family), members in groups.items():
        names = ", ".join(f"`{_name(row)}` ({row['pixels']})" for row in members)
        dual = [row for row in members if row["norms"]]
        cells = [
            f"{library} {family}",
            names,
            *(str(_sum(dual, k)) for k in ("norms", "converted")),
        ]
        holds = [
            [row["difference"] == 0 for row in dual],
            *([not row[name] for row in dual] for name in METHODS),
            [row["stripped"] == 0 for row in dual],
        ]
        lines.append([*cells, *map(_all, holds), str(_sum(dual, "fused"))])
    return markdown_table(lines, escaped=True)


def _name(row: Row) -> str:
    return str(row["network"]).partition(":")[2]


def _sum(found: list[Row], key: str) -> int:
    return sum(row[key] for row in found)


def _all(right: list[bool]) -> str:
    if not right:
        return "no norm"
    return "yes" if all(right) else f"{sum(right)} of {len(right)}"


def section(page: Path) -> str:
    """Write the part of the page."""
    found = rows.read(NAME)
    parts = [summary(found)]
    if any(complaint(row) or row.get("also") for row in found):
        parts += ["## Not wholly, and why", exceptions(found)]
    parts += ["## All, by family", by_family(found)]
    hours = sum(row["seconds"] for row in found) / 3600
    commits = ", ".join(dict.fromkeys(row["git"] for row in found))
    first = found[0]
    parts.append(
        f"Made by `python -m bench.zoo.run` in {hours:.1f} hours "
        f"({first['machine']}; {first['versions']}; {commits})."
    )
    return "\n\n".join(parts)
