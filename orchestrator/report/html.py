"""One self-contained page for a run that ended: its figures and its bill. No script, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from orchestrator.report.bill import end_of
from orchestrator.report.text import clean

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr+tr td{border-top:1px solid #eee}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}tr+tr td{border-color:#333}}"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report (`RunView.report`); everything in it that came from outside is escaped."""
    bill: Mapping[str, Any] = report["bill"]
    facts = [
        ("phase", report["phase"]),
        ("nodes", report["num_nodes"]),
        ("started", report["started"]),
        ("ended", report["ended"] or "still going"),
        ("cloud", report.get("cloud", "")),
        ("why", report.get("message", "")),
        *(report.get("metrics") or {}).items(),
    ]
    totals = [
        ("total", f"${bill['spot_usd_high']}"),
        ("at least", f"${bill['spot_usd_low']}"),
        ("on-demand", f"${bill['on_demand_usd']}"),
        ("saving", f"${bill['saving']}"),
    ]
    title = _safe(report["run_id"])
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{_pairs(facts)}"
        f"<h2>Bill</h2>{_pairs(totals)}{_instances(bill['instances'])}{_other(bill['other'])}"
        f"<p><small>Rule: {_safe(bill.get('rule', ''))}</small></p></html>\n"
    )


def _safe(value: Any) -> str:
    return escape(clean(str(value)))


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> str:
    rows = "".join(f"<tr><th>{_safe(name)}<td>{_safe(value)}" for name, value in pairs if value not in ("", None))
    return f"<table>{rows}</table>"


def _instances(items: Iterable[Mapping[str, Any]]) -> str:
    left = "<th>instance<th>type<th>zone<th>bought<th>start<th>end"
    head = f"<tr>{left}<th class=n>seconds<th class=n>$<th class=n>on-demand $"
    rows = []
    for item in items:
        plain = (
            item["instance_id"],
            item["instance_type"],
            item["zone"],
            item["lifecycle"],
            item["start"],
            end_of(item),
        )
        figures = (item["seconds"], item["usd"], item["on_demand_usd"])
        cells = "".join(f"<td>{_safe(value)}" for value in plain) + "".join(f"<td class=n>{_safe(v)}" for v in figures)
        rows.append(f"<tr>{cells}")
    return f"<table>{head}{''.join(rows)}</table>"


def _other(items: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(f"<tr><td>{_safe(i['kind'])}<td>{_safe(i['id'])}<td class=n>{_safe(i['usd'])}" for i in items)
    return f"<table>{rows}</table>" if rows else ""
