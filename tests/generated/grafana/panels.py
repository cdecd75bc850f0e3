"""
The kinds of panels both dashboards are made of, and how their queries select series.

It knows Grafana's models (the Foundation SDK) and the metric catalogue's sentences, not what a dashboard shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, statetimeline
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLink,
    DashboardLinkType,
    DataSourceRef,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from prometheus_client import CollectorRegistry

from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.metrics.mns import MnsMetrics
from pipeline.service.metrics.process import PortMetrics, ProcessMetrics, show_process, show_ready
from pipeline.service.metrics.worker import WorkerMetrics

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = ('job=~"$job"', 'instance=~"$instance"')
RATE = "[$__rate_interval]"
# A subquery needs a step of its own: Prometheus would take its evaluation interval, a minute, and find one sample.
STEP_SECONDS = 15
OUTCOMES = ("partition", "outcome", "reason")
STAT_HEIGHT = 4
HEIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An expression, and the name of each series it gives."""

    expr: str
    legend: str


def q(expr: str, legend: str) -> Query:
    """Write a query short: they are what a reader of the dashboards looks for."""
    return Query(expr=expr, legend=legend)


def of(metric: str, *matchers: str) -> str:
    """Select *metric* of the jobs and instances chosen at the top of the dashboard."""
    return f"{metric}{{{', '.join((*CHOSEN, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "") -> str:
    """Per second, added up; a counter that starts anew with its process is no fall."""
    return f"sum{_by(by)}(rate({of(metric, *matchers)}{RATE}))"


def quantile(share: float, histogram: str, *matchers: str, by: str = "") -> str:
    """Return the quantile *share* (0 .. 1) of a histogram of all instances together, by the labels *by*."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', *matchers, by=labels)})"


def quantiles(histogram: str, *, by: str = "") -> list[Query]:
    """Return the median and the 99th percentile."""
    name = f" {{{{{by}}}}}" if by else ""
    return [q(quantile(share, histogram, by=by), f"p{share * 100:.0f}{name}") for share in (0.5, 0.99)]


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    """Return the mean of a histogram of all instances together, by the labels *by*."""
    total, count = (rate(f"{histogram}_{part}", *matchers, by=by) for part in ("sum", "count"))
    return f"{total} / {count}"


def records(*matchers: str) -> str:
    """
    Return vod_pipeline_records_total, each partition once.

    A partition's totals are committed with its records and go on at its next owner. While it moves, two instances can
    show it for a scrape or longer (one that is cut off from Kafka does not know yet): the higher total is the newer.
    """
    return f"max by ({', '.join(OUTCOMES)}) ({of('vod_pipeline_records_total', *matchers)})"


def records_rate(*matchers: str, by: str = "") -> str:
    """
    Records per second: the rate of the partitions' own totals, not of each instance's series.

    Added up by instance, what a partition's next owner committed before its first scrape would be missing.
    """
    return f"sum{_by(by)}(rate({records(*matchers)}[$__rate_interval:{STEP_SECONDS}s]))"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


@cache
def catalogue() -> dict[str, str]:
    """Return every metric of the product (without _total and the like) with its sentence."""
    registry = CollectorRegistry()
    BridgeMetrics(registry)
    MnsMetrics(registry, [("entry", "queue")])
    WorkerMetrics(registry)
    ProcessMetrics(registry, started_at=0, certificates={})
    show_ready(registry, list)
    PortMetrics(registry)
    show_process(registry)
    return {family.name: family.documentation for family in registry.collect()}


def meaning(metric: str, *more: str) -> str:
    """Return the catalogue's sentence of *metric*, and what there is to say beyond it."""
    return " ".join((catalogue()[metric], *more))


def runbook(anchor: str) -> list[Builder[DashboardLink]]:
    """Link to an alert's section of docs/runbooks.md, or, where no alert watches, to its beginning."""
    link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK)
    return [link.url(f"${{runbooks:raw}}#{anchor}" if anchor else "${runbooks:raw}").target_blank(True)]


def thresholds(*steps: tuple[float, str]) -> dashboard.ThresholdsConfig:
    """Green, and from each value on another colour."""
    levels = [Threshold(value=None, color="green"), *(Threshold(value=value, color=color) for value, color in steps)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels)


def warn(value: float, critical: float | None = None) -> dashboard.ThresholdsConfig:
    """Yellow from *value* on, red from *critical* on."""
    return thresholds((value, "yellow"), *([(critical, "red")] if critical is not None else []))


NONE = thresholds()


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for ref_id, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().ref_id(ref_id).datasource(DATASOURCE)
        target.expr(query.expr).legend_format(query.legend)
        targets.append(target.instant() if instant else target.range())
    return targets


def number(
    title: str, query: Query, *, unit: str, says: str, anchor: str, limits: dashboard.ThresholdsConfig = NONE,
    span: int = 4, instant: bool = False,
) -> Builder[Panel]:  # fmt: skip
    """Build a panel with the latest value in large digits; *instant*: no line behind it."""
    panel = stat.Panel().title(title).description(says).links(runbook(anchor)).datasource(DATASOURCE)
    panel.unit(unit).thresholds(limits).span(span).height(STAT_HEIGHT).no_value("none")
    panel.graph_mode(BigValueGraphMode.NONE if instant else BigValueGraphMode.AREA)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets([*_targets([query], instant=instant)])


def lines(
    title: str, *queries: Query, unit: str, says: str, anchor: str, limits: dashboard.ThresholdsConfig | None = None,
    span: int = 12, stacked: bool = False, ratio: bool = False, windows: bool = False,
    from_zero: bool = True,
) -> Builder[Panel]:  # fmt: skip
    """
    Build a panel with a line for each series.

    Args:
        unit: Grafana's name of it.
        limits: Drawn as lines.
        stacked: The series add up.
        ratio: The axis goes to 1 at least.
        from_zero: The axis begins at 0.
        windows: The series are gauges of the last complete window: steps, with points as a code may have one only.
    """
    panel = series.Panel().title(title).description(says).links(runbook(anchor)).datasource(DATASOURCE)
    panel.unit(unit).span(span).height(HEIGHT).fill_opacity(25 if stacked else 8)
    if from_zero:
        panel.min(0)
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
    panel.legend(legend.calcs(["lastNotNull", "max"]).show_legend(True))
    panel.show_points(VisibilityMode.ALWAYS if windows else VisibilityMode.AUTO)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if ratio:
        panel.axis_soft_max(1)
    if limits is not None:
        panel.thresholds(limits)
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return panel.targets([*_targets(queries)])


def ranking(title: str, query: Query, *, unit: str, says: str, anchor: str, span: int = 8) -> Builder[Panel]:
    """Build a panel with a bar for each series, over the whole time shown."""
    panel = bargauge.Panel().title(title).description(says).links(runbook(anchor)).datasource(DATASOURCE)
    panel.unit(unit).min(0).decimals(0).span(span).height(HEIGHT).thresholds(NONE).no_value("none")
    panel.orientation(VizOrientation.HORIZONTAL).display_mode(BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets([*_targets([query], instant=True)])


def spread(
    title: str, histogram: str, *matchers: str, unit: str, says: str, anchor: str, span: int = 12
) -> Builder[Panel]:
    """Build a heat map of a histogram: how many observations fell into which bucket, over time."""
    target = prometheus.Dataquery().ref_id("A").datasource(DATASOURCE).range().format(PromQueryFormat.HEATMAP)
    target.expr(rate(f"{histogram}_bucket", *matchers, by="le")).legend_format("{{le}}")
    panel = heatmap.Panel().title(title).description(says).links(runbook(anchor)).datasource(DATASOURCE)
    panel.unit(unit).span(span).height(HEIGHT).calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LINEAR))
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5))
    return panel.with_target(target)


def states(
    title: str, query: Query, *, names: Sequence[tuple[str, str]], says: str, anchor: str, span: int = 12
) -> Builder[Panel]:
    """Build a panel with a bar for each series whose colour changes with its value; *names*: of 0, 1 and so on."""
    panel = statetimeline.Panel().title(title).description(says).links(runbook(anchor)).datasource(DATASOURCE)
    named = {
        str(value): ValueMappingResult(text=text, color=color, index=value)
        for value, (text, color) in enumerate(names)
    }  # fmt: skip
    panel.unit("none").mappings([ValueMap(options=named)]).span(span).height(HEIGHT).merge_values(True)
    return panel.targets([*_targets([query])])
