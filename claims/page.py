"""Results of claims for people: a short summary for the terminal, and `docs/claims.md`."""

import pathlib

from core.workdir import read_json

TABLE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "claims.md"


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes `docs/claims.md` from the results in a folder; its path."""
    TABLE.write_text(table(folder), encoding="utf-8")
    return TABLE


def summary(result: dict) -> str:
    """A short table of a result."""
    lines = [
        f"{result['card']} {result['title']}: {result['says']}",
        f"{result['metric']}, {result['seeds']} seeds, {result['items']} items",
    ]
    width = max(map(len, result["arms"]))
    lines += [f"  {arm:<{width}}  {sum(values) / len(values):.4f}" for arm, values in result["arms"].items()]
    lines += [f"  {_contrast(found)}: {_interval(found)}, {found['verdict']}" for found in result["contrasts"]]
    return "\n".join([*lines, f"verdict: {result['verdict']}"])


def _contrast(found: dict) -> str:
    return f"{found['arm']} - {found['against']}"


def _interval(found: dict) -> str:
    low, high = found["interval"]
    return f"{found['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def table(folder: pathlib.Path) -> str:
    """`docs/claims.md`: every result of a folder."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    lines = [
        "# Claims",
        "",
        "What each method was said to do, and what paired seeds showed of it. Arms, metric, direction and the smallest difference of",
        "interest stand in `claims/<card>_<name>.py` and were fixed before the runs. Intervals are 95% by a paired t-test over seeds, in",
        "brackets; a verdict is `underpowered` where half the interval is wider than that smallest difference. Written by",
        "`python -m launch.claim --table`.",
        "",
        "| card | claim | metric | difference | smallest | verdict | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in found:
        first = result["contrasts"][0]
        cells = (
            result["card"],
            result["says"],
            result["metric"],
            f"{_contrast(first)}: {_interval(first)}",
            first["smallest"],
            result["verdict"],
        )
        lines.append("| " + " | ".join(map(str, (*cells, result["seeds"]))) + " |")
    for result in found:
        lines += ["", f"## {result['card']} {result['title']}", "", f"| arm | {result['metric']} by seed | mean |", "|---|---|---|"]
        for arm, values in result["arms"].items():
            lines.append(f"| {arm} | {', '.join(f'{value:.4f}' for value in values)} | {sum(values) / len(values):.4f} |")
        lines += ["", "| difference | over seeds | over items | verdict |", "|---|---|---|---|"]
        for one in result["contrasts"]:
            low, high = one["interval_over_items"]
            lines.append(f"| {_contrast(one)} | {_interval(one)} | [{low:+.4f}, {high:+.4f}] | {one['verdict']} |")
        made = result["made_by"]
        lines += ["", f"`{made['command']}`, commit {made['commit']}, {made['cpu']}, cores: {made['cores']}, {made['time'][:10]}."]
    return "\n".join(lines) + "\n"
