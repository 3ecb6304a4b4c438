"""The reports of `mlic-bench` as tables, for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlic_runtime.base.text import printable

if TYPE_CHECKING:
    from mlic_runtime.bench.benchmark import BenchReport, Timing
    from mlic_runtime.bench.choose_precision import ChoiceReport
    from mlic_runtime.bench.cold_start import ColdStartReport
    from mlic_runtime.bench.stages import StageReport

    _Report = BenchReport | ChoiceReport | ColdStartReport | StageReport


def bench_table(report: "BenchReport") -> str:
    """The report of one combination of batch size and threads."""
    names = [f"{timing.name} ({timing.version})" for timing in report.timings]
    width = max(len(name) for name in names)
    lines = [
        f"model      {report.model}, {report.precision}, provider {report.provider}",
        f"input      batch size {report.batch_size}, {report.tokens} tokens a caption",
        *_circumstances(report),
        f"{'backend':{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'p99 ms':>9}  {'pictures/s':>10}",
    ]
    for name, timing in zip(names, report.timings, strict=True):
        lines.append(f"{name:{width}}  {_columns(timing)}")
    for comparison in report.comparisons:
        lines.append(
            f"{comparison.name} took {comparison.ratio:.2f} times as long as mlic-runtime (median of pairs; "
            f"p10 {comparison.ratio_p10:.2f}, p90 {comparison.ratio_p90:.2f}); "
            f"logits differ by at most {comparison.max_abs_difference:.1e}"
        )
    return "\n".join(lines) + "\n"


def grid_table(reports: "Sequence[BenchReport]") -> str:
    """The reports of several combinations of batch size and threads."""
    first = reports[0]
    width = max(len(timing.name) for report in reports for timing in report.timings)
    lines = [
        f"model      {first.model}, {first.precision}, provider {first.provider}",
        *_circumstances(first, threads=", ".join(str(count) for count in dict.fromkeys(r.threads for r in reports))),
        f"threads  batch  {'backend':{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'p99 ms':>9}  {'pictures/s':>10}  "
        "times the runtime (p10 to p90)",
    ]
    for report in reports:
        ratios = ["", *(f"{c.ratio:5.2f} ({c.ratio_p10:.2f} to {c.ratio_p90:.2f})" for c in report.comparisons)]
        for timing, ratio in zip(report.timings, ratios, strict=True):
            row = f"{report.threads:7}  {report.batch_size:5}  {timing.name:{width}}  {_columns(timing)}  {ratio}"
            lines.append(row.rstrip())
    return "\n".join(lines) + "\n"


def choice_table(report: "ChoiceReport") -> str:
    """The report of `mlic-bench --choose`."""
    lines = [
        f"model      {report.model}, provider {report.provider}",
        f"input      one picture, {report.tokens} tokens a caption",
        *_circumstances(report),
        f"precision  {'MB':>9}  {'p50 ms':>9}  {'p90 ms':>9}",
    ]
    for row in report.precisions:
        mark = "  chosen" if row.precision == report.chosen else ""
        lines.append(f"{row.precision:9}  {row.bytes / 1e6:9.2f}  {row.p50_ms:9.3f}  {row.p90_ms:9.3f}{mark}")
    return "\n".join(lines) + "\n"


def stage_table(report: "StageReport") -> str:
    """The report of `mlic-bench --stages`."""
    total = report.predict.p50_ms
    lines = [
        f"model      {report.model}, {report.precision}, provider {report.provider}",
        *_input(report),
        f"labels     {', '.join(map(printable, report.labels)) or 'none'}",
        f"measured   one prediction after the other, warm, in process: {report.runs} after {report.warmup}, "
        f"{report.threads} threads",
        *_machine(report),
        f"{'stage':11}  {'p50 ms':>9}  {'p90 ms':>9}  {'of predict':>10}",
    ]
    for row in (*report.stages, report.predict):
        lines.append(f"{row.name:11}  {row.p50_ms:9.3f}  {row.p90_ms:9.3f}  {row.p50_ms / total:10.1%}")
    lines.append(
        f"outside the graph: {report.overhead:.1%} of the graph's time (median of runs; "
        f"p10 {report.overhead_p10:.1%}, p90 {report.overhead_p90:.1%})"
    )
    return "\n".join(lines) + "\n"


def cold_start_table(report: "ColdStartReport") -> str:
    """The report of `mlic-bench --cold-start`."""
    lines = [
        f"model      {printable(report.ran)}",
        *_input(report),
        f"measured   whole processes in turns: {report.runs} rounds after {report.warmup}",
        *_machine(report),
        f"{'process':10}  {'p50 ms':>9}  {'p90 ms':>9}",
    ]
    lines.extend(f"{row.name:10}  {row.p50_ms:9.1f}  {row.p90_ms:9.1f}" for row in report.processes)
    lines.append(
        f"mlic-infer took {report.ratio:.2f} times as long as importing its libraries (median of rounds; "
        f"p10 {report.ratio_p10:.2f}, p90 {report.ratio_p90:.2f})"
    )
    if report.peak_memory_bytes is not None:
        lines.append(f"peak memory of mlic-infer: {report.peak_memory_bytes / 1e6:.1f} MB resident")
    return "\n".join(lines) + "\n"


def _columns(timing: "Timing") -> str:
    return f"{timing.p50_ms:9.3f}  {timing.p90_ms:9.3f}  {timing.p99_ms:9.3f}  {timing.pictures_per_second:10.1f}"


def _circumstances(report: "BenchReport | ChoiceReport", threads: str | None = None) -> list[str]:
    return [
        *_input(report),
        f"measured   the graph alone, warm: {report.runs} runs after {report.warmup}, "
        f"{threads or report.threads} threads",
        *_machine(report),
    ]


def _input(report: "_Report") -> list[str]:
    return [
        f"picture    {printable(report.picture)}",
        f"caption    {'none' if report.caption is None else printable(report.caption)}",
    ]


def _machine(report: "_Report") -> list[str]:
    machine = report.machine
    return [f"machine    {machine['processor']}, {machine['cpus']} CPUs, {machine['platform']}", ""]
