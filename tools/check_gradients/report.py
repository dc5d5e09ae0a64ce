"""The report of ``tools.check_gradients``: one HTML page that needs no other file, with its plots as SVG."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from engine.gradcheck.checks import TOLERANCES, Check
from tools.check_gradients.fault_study import CHECKS, USUAL
from tools.check_gradients.study import ORDER, Study, by_subject

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: .85rem; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #eee; vertical-align: top; }
th { background: #f6f6f6; position: sticky; top: 0; } th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: nowrap; }
td.text, .words th { text-align: left; white-space: normal; }
.pass { color: #1a7f37; } .fail { color: #fff; background: #c62828; }
.verdict { padding: .6rem 1rem; border-radius: .4rem; font-weight: 600; }
.verdict.pass { background: #e6f4ea; } nav a { margin-right: 1rem; } svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; } figure { margin: 1rem 0; }
"""

_COLORS = ("#0b5fa5", "#d1495b", "#2e8b57", "#e3a018")


def page(study: Study, about: dict[str, str]) -> str:
    """Return the whole page."""
    sections = [
        ("checks", "Operators, losses and the whole objective", _checks(study)),
        ("steps", "The length of a difference", _steps(study)),
        ("kinks", "Kinks", _kinks(study)),
        ("precision", "Precision by depth", _precision(study)),
        ("path", "Along a run", _path(study)),
        ("confidence", "How sure random directions are", _confidence(study)),
        ("formulas", "Published formulas", _formulas(study)),
        ("faults", "Faults put in on purpose", _faults(study)),
    ]
    links = "".join(f'<a href="#{name}">{html.escape(title)}</a> ' for name, title, _ in sections)
    body = "".join(f'<h2 id="{name}">{html.escape(title)}</h2>{content}' for name, title, content in sections)
    facts = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in about.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Gradient study: {html.escape(about['model'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Gradient study: {html.escape(about['model'])}</h1>{_verdict(study)}<dl>{facts}</dl>"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def _verdict(study: Study) -> str:
    failures = study.failures()
    if not failures:
        return '<p class="verdict pass">Everything is as it should be.</p>'
    items = "".join(f"<li>{html.escape(failure)}</li>" for failure in failures)
    return f'<p class="verdict fail">{len(failures)} of the checks failed</p><ul>{items}</ul>'


# ---- sections ----


def _checks(study: Study) -> str:
    methods = [method for method in TOLERANCES if any(check.method == method for check in study.checks)]
    rows = [
        [subject, *(_check_cell(found.get(method)) for method in methods)]
        for subject, found in by_subject(study.checks).items()
    ]
    everything: list[list[_Cell | str]] = [
        [
            check.subject,
            _Cell(check.method, "text"),
            f"{check.agreement.error:.2e}",
            f"{check.tolerance:.0e}",
            f"{max(1 - check.agreement.cosine, 0):.1e}",
            f"{check.agreement.ratio - 1:+.1e}",
        ]
        for check in study.all_checks
    ]
    allowed = {check.method: check.tolerance for check in study.checks}
    limits = ["allowed", *(f"{allowed[method]:.0e}" for method in methods)]
    return (
        "<p>Relative errors; a convolution's row has its bias and its ReLU in it. "
        "<b>Adjoint identity</b>: &lt;g, J x&gt; against &lt;J' g, x&gt; of the operator's linear "
        "part, by |g| |J x|. <b>Complex step</b>: Im f(x + i h d) / h along random directions, nothing is subtracted. "
        "<b>Definition</b>: the operators and equations written once more without the engine's code. <b>Central "
        "differences</b> with the decisions of ReLUs and maxima held. <b>PyTorch</b>: its autograd, where it is "
        "installed. A gradient that is wrong by a factor alone has the cosine 1: the factor is then named.</p>"
        + _table(["", *methods], [*rows, limits])
        + "<details><summary>Error, cosine and ratio of the norms of every comparison</summary>"
        + _table(["", "method", "error", "allowed", "1 - cosine", "ratio - 1"], everything)
        + "</details>"
    )


def _check_cell(check: Check | None) -> _Cell | str:
    if check is None:
        return ""
    found = check.agreement
    hint = f"cosine {found.cosine:.12f}, ratio {found.ratio:.12f}"
    factor = f" (factor {check.factor})" if check.factor and not check.passed else ""
    return _Cell(f"{found.error:.1e}{factor}", "pass" if check.passed else "fail", hint)


def steps_figure(study: Study) -> str:
    """Return the error of central differences against their length, as SVG."""
    figure, axes = _figure()
    for color, one in zip(_COLORS, study.steps, strict=False):
        axes.loglog(one.steps, one.errors, "o-", color=color, label=one.name, markersize=3, linewidth=1)
        if one.name.endswith("held"):
            axes.loglog(one.steps, [one.fitted(step) for step in one.steps], "--", color=color, linewidth=0.8)
    axes.set_xlabel("h, gray levels")
    axes.set_ylabel("relative error of the derivative")
    axes.set_ylim(1e-13, 1e6)
    axes.legend()
    return _svg(figure, "Error of central differences against their length")


def _steps(study: Study) -> str:
    rows = [
        [
            one.name,
            f"{one.order:.3f}",
            f"{one.truncation:.2e}",
            f"{one.rounding:.2e}",
            f"{one.best_step:.1e}",
            f"{one.best_error:.1e}",
            f"{one.fitted_step:.1e}",
        ]
        for one in study.steps
    ]
    low, high = ORDER
    return (
        "<p>The error of (f(x + h d) - f(x - h d)) / 2h falls with h until rounding takes over: a h^p + b / h, fitted "
        f"(dashed). With all decisions held the loss is smooth, and p must lie between {low} and {high} in float64; as "
        "it is, ReLUs that switch between the two images add an error of their own, which falls with h only as their "
        "number does.</p>"
        + _framed(steps_figure(study), "Error of central differences against their length")
        + _table(["", "order p", "a", "b", "best h", "error there", "best h by the fit"], rows)
    )


def _kinks(study: Study) -> str:
    steps = [
        [
            f"{step.step:g}",
            f"{step.changed:.1f}",
            f"{step.directions_without}",
            _number(step.error_without),
            f"{step.directions_with}",
            _number(step.error_with),
            f"{step.error_held:.1e}",
        ]
        for step in study.kinks.steps
    ]
    lengths = [step.step for step in study.kinks.steps]
    layers = [
        [layer.label, f"{layer.count:,}", f"{layer.at_zero:,}", *(f"{layer.changed[h]:.1f}" for h in lengths)]
        for layer in study.kinks.layers
    ]
    zeros = sum(layer.at_zero for layer in study.kinks.layers)
    return (
        "<p>A ReLU decides by the sign of its input, a maximum by its largest one. Between images with the same "
        "decisions the network is linear; a quotient over a change of decisions is no derivative of either side.</p>"
        + _table(
            [
                "h",
                "decisions that change",
                "directions without",
                "their error",
                "with",
                "their error",
                "decisions held",
            ],
            steps,
        )
        + _table(
            ["operator", "decisions", "inputs exactly 0", *(f"changed, h = {length:g}" for length in lengths)], layers
        )
        + f"<p>Inputs of a ReLU that are exactly 0: {zeros:,}. There the paper's gradient (0 where F &lt; 0) does not "
        "say which side is meant: the left derivative is 0, the right one is not, and what lies between is a "
        "subgradient. The engine takes 0, as the paper's equations 2 and 6 do for F behind the ReLU.</p>"
    )


def precision_figure(study: Study) -> str:
    """Return the distance of float32 from float64 by depth, as SVG."""
    figure, axes = _figure(height=4.2)
    for color, one in zip(_COLORS, study.precision, strict=False):
        for kind, line in (("forward", "-"), ("backward", "--")):
            errors = [getattr(layer, kind) for layer in one.layers]
            places = [index for index, error in enumerate(errors) if error]
            axes.semilogy(places, [errors[index] for index in places], line, marker="o", markersize=3, color=color,
                          linewidth=1, label=f"{one.name}, {kind}")  # fmt: skip
    labels = [layer.label for layer in study.precision[0].layers]
    axes.set_xticks(range(len(labels)), labels, rotation=75, ha="right", fontsize=7)
    axes.set_ylabel("relative L2 distance from float64")
    axes.legend(fontsize=8)
    return _svg(figure, "Distance of float32 from float64 by depth")


def _precision(study: Study) -> str:
    labels = [layer.label for layer in study.precision[0].layers]
    rows = [[one.name, f"{one.value:.1e}", f"{one.gradient:.1e}"] for one in study.precision]
    rows += [[f"{one.name}, GPU", _number(one.value), _number(one.gradient)] for one in study.gpu]
    layers = [
        [
            label,
            *(_number(getattr(one.layers[index], kind)) for one in study.precision for kind in ("forward", "backward")),
        ]
        for index, label in enumerate(labels)
    ]
    heads = [f"{one.name}, {kind}" for one in study.precision for kind in ("forward", "backward")]
    return (
        "<p>Outputs on the way up, gradients with respect to the inputs on the way back. Rounding alone grows slowly; "
        "where it puts a value on the other side of a ReLU, the gradient there differs wholly. What the fast path "
        "does not form by itself, the response before a pooling, is left out.</p>"
        + _framed(precision_figure(study), "Distance of float32 from float64 by depth")
        + _table(["", "value", "gradient"], rows)
        + _table(["operator", *heads], layers)
    )


def _path(study: Study) -> str:
    methods = [check.method for check in study.stations[0].checks]
    rows = [
        [
            str(station.iteration),
            f"{station.value:.5g}",
            f"{100 * station.at_bounds:.1f} %",
            *(_check_cell(check) for check in station.checks),
            *(f"{one.gradient:.1e}" for one in station.precision),
        ]
        for station in study.stations
    ]
    heads = [*methods, *(f"gradient, {one.name}" for one in study.stations[0].precision)]
    return (
        "<p>The checks of the whole objective again, at the iterates of a run with the engine's own L-BFGS in "
        "float32. Toward a minimum the terms of the gradient cancel and the rounding of each is left: errors are "
        "allowed as large as at the start, and so larger in relation to a gradient that has shrunk.</p>"
        + _table(["iterate", "loss", "at bounds", *heads], rows)
    )


def confidence_figure(study: Study) -> str:
    """Return the chance of noticing a fault by its extent, as SVG."""
    figure, axes = _figure(height=3.4)
    fractions = [one.fraction for one in study.detection]
    for values, line, color, label in (
        ([one.one_direction for one in study.detection], "-", _COLORS[0], "one direction"),
        ([one.simulated for one in study.detection], "o", _COLORS[0], "one direction, simulated"),
        ([one.one_coordinate for one in study.detection], "--", _COLORS[1], "one coordinate"),
    ):
        axes.semilogx(fractions, values, line, color=color, label=label)
    axes.set_xlabel("share of the gradient's coordinates that are wrong")
    axes.set_ylabel("chance of noticing")
    axes.legend()
    return _svg(figure, "Chance of noticing a fault by its extent")


def _confidence(study: Study) -> str:
    rows = [
        [
            f"{100 * one.fraction:g} %",
            f"{one.one_direction:.6f}",
            f"{one.simulated:.4f}",
            f"{one.directions:g}",
            f"{one.one_coordinate:g}",
            f"{one.coordinates:,.0f}",
        ]
        for one in study.detection
    ]
    tolerance = study.detection[0].tolerance
    return (
        f"<p>Suppose that a share p of the gradient's coordinates is wrongly 0, and that a check passes an error of "
        f"{tolerance:g} of the gradient's length. Along a random direction every wrong coordinate takes part, so that "
        "the chance of noticing is erfc(tolerance / sqrt(2 p)); a single coordinate has to be hit. The columns "
        "<i>needed</i> tell how many tries leave one miss in a million. Where only one or two coordinates are wrong, "
        "their own size decides, and the simulation comes out lower than the law.</p>"
        + _framed(confidence_figure(study), "Chance of noticing a fault by its extent")
        + _table(
            ["wrong", "one direction", "simulated", "directions needed", "one coordinate", "coordinates needed"], rows
        )
    )


def _formulas(study: Study) -> str:
    rows = [
        [
            _Cell(verdict.name, "text"),
            _Cell(verdict.claim, "text"),
            _Cell(verdict.loss, "text"),
            _Cell(verdict.derivative_of, "text"),
            _Cell("right" if verdict.right else "wrong", "text pass" if verdict.right else "text"),
            _Cell(_factor_text(verdict), "text"),
            _Cell(verdict.counter_example or "", "text"),
            _Cell(verdict.source, "text"),
        ]
        for verdict in study.formulas
    ]
    return (
        "<p>Forms of the equations that are in circulation, evaluated on random matrices against the exact "
        f"derivative. {html.escape(study.formula_summary())}.</p>"
        + _table(
            ["name", "formula", "given for", "what it is", "as claimed", "factor", "counter-example", "source"],
            rows,
            "words",
        )
    )


def _factor_text(verdict: Any) -> str:
    if verdict.factor is None or verdict.factor == 1:
        return ""
    number = f"{verdict.factor:g}"
    return number if verdict.factor_text in (None, number) else f"{verdict.factor_text} = {number}"


def _faults(study: Study) -> str:
    rows: list[list[_Cell | str]] = [
        [
            row.name,
            *(_Cell("noticed", "pass") if row.noticed[check] else _Cell("-", "") for check in CHECKS),
            f"{100 * row.usual:.0f} %",
        ]
        for row in study.faults
    ]
    counts = ["noticed", *(f"{sum(row.noticed[check] for row in study.faults)}" for check in CHECKS), ""]
    return (
        "<p>The mistakes that people make, put into the engine one at a time, on a small network with odd sizes. "
        f"{html.escape(study.fault_summary())}. The last column is the usual check, a central difference in one "
        "coordinate: in how many of 40 coordinates it differs by more than 1 %. On the engine without a fault it does "
        f"so in {100 * study.false_alarms:.0f} %, at kinks.</p>" + _table(["fault", *CHECKS, USUAL], [*rows, counts])
    )


# ---- building blocks ----


class _Cell:
    """A cell of a table with a class and a hint."""

    def __init__(self, text: str, kind: str, hint: str = "") -> None:
        self.text, self.kind, self.hint = text, kind, hint

    def __str__(self) -> str:
        hint = f' title="{html.escape(self.hint)}"' if self.hint else ""
        return f'<td class="{self.kind}"{hint}>{html.escape(self.text)}</td>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[_Cell | str]], kind: str = "") -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>"
        + "".join(str(cell) if isinstance(cell, _Cell) else f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1e}"


def _figure(height: float = 4.5) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """Return a figure as SVG, the same each time."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _framed(drawing: str, title: str) -> str:
    """Return a drawing for the page; ``title`` is for those who cannot see it."""
    return f'<figure role="img" aria-label="{html.escape(title)}">{drawing[drawing.index("<svg") :]}</figure>'
