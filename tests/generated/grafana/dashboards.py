"""
Writes the dashboards' JSON, which Grafana reads: `make generate`.

It knows what both have in common: variables, annotations, links. What they show is in overview.py and internals.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from tests.generated.grafana import internals, overview
from tests.generated.grafana.panels import DATASOURCE, of

TAG = "vod-pipeline"
# Where docs/runbooks.md can be read in a browser; only who deploys it knows. Typed in once, it stays in the URL.
RUNBOOKS = "docs/runbooks.md"
ANNOTATION_STEP_SECONDS = 60


def dashboards() -> dict[str, Dashboard]:
    """Return the dashboards by the names of their files."""
    return {
        f"{module.UID}.json": _dashboard(module.TITLE, module.UID, module.__doc__ or "", module.rows())
        for module in (overview, internals)
    }


def to_json(dashboard: Dashboard) -> str:
    """Write a dashboard as it is committed: a line for each value, so that a change can be read."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _dashboard(
    title: str, uid: str, description: str, rows: Sequence[tuple[str, Sequence[Builder[Panel]]]]
) -> Dashboard:
    builder = build.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    builder.time("now-3h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    builder.variables(_variables())
    builder.annotations([_Annotation(annotation) for annotation in _annotations()])
    link = build.DashboardLink("vod-pipeline").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    builder.link(link.keep_time(True).include_vars(True).as_dropdown(False))
    for name, panels in rows:
        builder.with_row(build.Row(name))
        for panel in panels:
            builder.with_panel(panel)
    built = builder.build()
    for number, placed in enumerate(built.panels or (), start=1):
        placed.id_val = number
    return built


def _variables() -> list[Builder[VariableModel]]:
    return [
        build.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _choice("job", "Job", 'label_values(vod_pipeline_ready, job)'),
        _choice("instance", "Instance", 'label_values(vod_pipeline_ready{job=~"$job"}, instance)'),
        _choice("error_code", "ErrorCode", 'label_values(vod_pipeline_deletions_total{status="fail"}, error_code)')
        .all_value(".*"),
        build.TextBoxVariable("runbooks").label("Runbooks at").default_value(RUNBOOKS)
        .current(VariableOption(text=RUNBOOKS, value=RUNBOOKS)),
    ]  # fmt: skip


def _choice(name: str, label: str, query: str) -> build.QueryVariable:
    """Offer the values of a label; by default all of them, so that other programs' series stay out."""
    variable = build.QueryVariable(name).label(label).query({"query": query, "refId": name}).datasource(DATASOURCE)
    variable.multi(True).include_all(True).current(VariableOption(text="All", value="$__all"))
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


class _PrometheusAnnotation(AnnotationQuery):
    """What Grafana's Prometheus data source reads of an annotation, which the SDK's model lacks."""

    title_format: str
    text_format: str

    def to_json(self) -> dict[str, object]:
        shown = {"titleFormat": self.title_format, "textFormat": self.text_format}
        return super().to_json() | shown | {"step": f"{ANNOTATION_STEP_SECONDS}s"}


class _Annotation(Builder[AnnotationQuery]):
    """The SDK takes builders."""

    def __init__(self, annotation: AnnotationQuery) -> None:
        self._annotation = annotation

    def build(self) -> AnnotationQuery:
        """Return it."""
        return self._annotation


def _annotations() -> list[AnnotationQuery]:
    # Over two steps, so that a start between two of them is in one; Grafana joins marks that follow each other.
    started = f"changes({of('vod_pipeline_started_timestamp_seconds')}[{2 * ANNOTATION_STEP_SECONDS}s]) > 0"
    # Some are of no one job: summed up over all instances, or of a service that is missing.
    firing = 'ALERTS{alertstate="firing", job=~"$job|"}'
    return [
        _annotation("Restarts", started, "blue", "{{job}} restarted", "{{instance}}"),
        _annotation("Alerts", firing, "red", "{{alertname}}", "{{severity}} {{instance}} {{error_code}}"),
    ]


def _annotation(name: str, expr: str, color: str, title: str, text: str) -> AnnotationQuery:
    annotation = _PrometheusAnnotation(name=name, datasource=DATASOURCE, expr=expr, icon_color=color)
    annotation.title_format, annotation.text_format = title, text
    return annotation
