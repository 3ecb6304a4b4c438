"""The reports of `mlic-bench` as text, for people: facts, a table, remarks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlic_runtime.base.text import printable

from .formats import table_lines

if TYPE_CHECKING:
    from mlic_runtime.bench.benchmark import BenchReport, Timing
    from mlic_runtime.bench.choose_precision import ChoiceReport
    from mlic_runtime.bench.cold_start import ColdStartReport
    from mlic_runtime.bench.stages import StageReport

_FACTS = ("model", "input", "picture", "caption", "labels", "measured", "machine")
_TIMING_COLUMNS = {"p50 ms": "9.3f", "p90 ms": "9.3f", "p99 ms": "9.3f", "pictures/s": "10.1f"}


def bench_table(report: "BenchReport") -> str:
    """Return the report of one combination of batch size and threads."""
    return _text(
        report,
        {"backend": "", **_TIMING_COLUMNS},
        [(f"{timing.name} ({timing.version})", *_numbers(timing)) for timing in report.timings],
        [
            f"{other.name} took {other.ratio:.2f} times as long as mlic-runtime (median of pairs; "
            f"p10 {other.ratio_p10:.2f}, p90 {other.ratio_p90:.2f}); "
            f"logits differ by at most {other.max_abs_difference:.1e}"
            for other in report.comparisons
        ],
        model=f"{report.model}, {report.precision}, provider {report.provider}",
        input=f"batch size {report.batch_size}, {report.tokens} tokens a caption",
        measured=_graph_alone(report, str(report.threads)),
    )


def grid_table(reports: "Sequence[BenchReport]") -> str:
    """Return the reports of several combinations of batch size and threads."""
    first = reports[0]
    rows = []
    for report in reports:
        ratios = ["", *(f"{c.ratio:5.2f} ({c.ratio_p10:.2f} to {c.ratio_p90:.2f})" for c in report.comparisons)]
        for timing, ratio in zip(report.timings, ratios, strict=True):
            rows.append((report.threads, report.batch_size, timing.name, *_numbers(timing), ratio))
    return _text(
        first,
        {"threads": "7", "batch": "5", "backend": "", **_TIMING_COLUMNS, "times the runtime (p10 to p90)": ""},
        rows,
        model=f"{first.model}, {first.precision}, provider {first.provider}",
        measured=_graph_alone(first, ", ".join(dict.fromkeys(str(report.threads) for report in reports))),
    )


def choice_table(report: "ChoiceReport") -> str:
    """Return the report of `mlic-bench --choose`."""
    return _text(
        report,
        {"precision": "", "provider": "", "MB": "9.2f", "p50 ms": "9.3f", "p90 ms": "9.3f", "": ""},
        [
            (
                *(row.precision, row.provider, row.bytes / 1e6, row.p50_ms, row.p90_ms),
                "chosen" * ((row.precision, row.provider) == (report.chosen, report.provider)),
            )
            for row in report.precisions
        ],
        model=report.model,
        input=f"one picture, {report.tokens} tokens a caption",
        measured=_graph_alone(report, str(report.threads)),
    )


def stage_table(report: "StageReport") -> str:
    """Return the report of `mlic-bench --stages`."""
    rows = (*report.stages, report.predict)
    remark = (
        f"outside the graph: {report.overhead:.1%} of the graph's time (median of runs; "
        f"p10 {report.overhead_p10:.1%}, p90 {report.overhead_p90:.1%})"
    )
    return _text(
        report,
        {"stage": "", "p50 ms": "9.3f", "p90 ms": "9.3f", "of predict": "10.1%"},
        [(row.name, row.p50_ms, row.p90_ms, row.p50_ms / report.predict.p50_ms) for row in rows],
        [remark],
        model=f"{report.model}, {report.precision}, provider {report.provider}",
        labels=", ".join(report.labels) or "none",
        measured=f"one prediction after the other, warm, in process: {report.runs} after {report.warmup}, "
        f"{report.threads} threads",
    )


def cold_start_table(report: "ColdStartReport") -> str:
    """Return the report of `mlic-bench --cold-start`."""
    remarks = [
        f"mlic-infer took {report.ratio:.2f} times as long as importing its libraries (median of rounds; "
        f"p10 {report.ratio_p10:.2f}, p90 {report.ratio_p90:.2f})"
    ]
    if report.peak_memory_bytes is not None:
        remarks.append(f"peak memory of mlic-infer: {report.peak_memory_bytes / 1e6:.1f} MB resident")
    return _text(
        report,
        {"process": "", "p50 ms": "9.1f", "p90 ms": "9.1f"},
        [(row.name, row.p50_ms, row.p90_ms) for row in report.processes],
        remarks,
        model=report.ran,
        measured=f"whole processes in turns: {report.runs} rounds after {report.warmup}",
    )


def _numbers(timing: "Timing") -> tuple[float, ...]:
    """Return the values of _TIMING_COLUMNS."""
    return timing.p50_ms, timing.p90_ms, timing.p99_ms, timing.pictures_per_second


def _graph_alone(report: "BenchReport | ChoiceReport", threads: str) -> str:
    return f"the graph alone, warm: {report.runs} runs after {report.warmup}, {threads} threads"


def _text(
    report: "BenchReport | ChoiceReport | ColdStartReport | StageReport",
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    remarks: Iterable[str] = (),
    **facts: str,
) -> str:
    """Return a report as text; `columns` and `rows` as in `table_lines`, `facts` are of _FACTS."""
    facts["picture"], facts["caption"] = report.picture, "none" if report.caption is None else report.caption
    facts["machine"] = "{processor}, {cpus} CPUs, {platform}".format(**report.machine)
    head = [f"{name:9}  {printable(facts[name])}" for name in _FACTS if name in facts]
    return "\n".join([*head, "", *table_lines(columns, rows), *remarks, ""])
