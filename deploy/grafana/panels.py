"""Grafana's JSON out of few words: panels that stand beside each other, and a dashboard of them."""

# What Grafana 12 writes itself. Older ones from 10 on read it, too.
SCHEMA_VERSION = 41
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Every query is about the job and the nodes that are chosen above.
CHOSEN = 'job="$job", instance=~"$instance"'

GREEN, YELLOW, RED = "green", "yellow", "red"


def rate(name, by="", labels=""):
    """What a counter grows by in a second, added up."""
    chosen = CHOSEN + (f", {labels}" if labels else "")
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({name}{{{chosen}}}[$__rate_interval]))"


def total(name, by="", labels="", how="sum"):
    """A gauge, added up."""
    chosen = CHOSEN + (f", {labels}" if labels else "")
    grouped = f" by ({by})" if by else ""
    return f"{how}{grouped} ({name}{{{chosen}}})"


def quantiles(name, by="", legend="", of=(0.5, 0.99)):
    """Quantiles of a histogram, with their legends."""
    grouped = f"{by}, le" if by else "le"
    rows = []
    for quantile in of:
        expr = f"histogram_quantile({quantile}, sum by ({grouped}) (rate({name}_bucket{{{CHOSEN}}}[$__rate_interval])))"
        rows.append((expr, f"{legend} p{quantile * 100:g}".strip()))
    return rows


def thresholds(*steps):
    """Green, then each colour from its value on: `thresholds((YELLOW, 1), (RED, 5))`."""
    rows = [{"color": GREEN, "value": None}] + [{"color": color, "value": value} for color, value in steps]
    return {"mode": "absolute", "steps": rows}


def low(*steps):
    """Red, then each colour from its value on."""
    rows = [{"color": RED, "value": None}] + [{"color": color, "value": value} for color, value in steps]
    return {"mode": "absolute", "steps": rows}


def _targets(queries, instant=False):
    return [
        {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expr,
            "instant": instant,
            "legendFormat": legend,
            "range": not instant,
            "refId": chr(ord("A") + place),
        }
        for place, (expr, legend) in enumerate(queries)
    ]


def stat(title, description, expr, unit="short", steps=None, width=4, decimals=None):
    """One number, in the colour of its threshold."""
    defaults = {"color": {"mode": "thresholds"}, "mappings": [], "thresholds": steps or thresholds(), "unit": unit}
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": "stat",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        },
        "targets": _targets([(expr, "")]),
        "size": (width, 4),
    }


def series(title, description, queries, unit="short", steps=None, stack=False, width=8):
    """Lines over time. With thresholds they are drawn."""
    custom = {
        "drawStyle": "line",
        "fillOpacity": 20 if stack else 5,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stack else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    defaults = {
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "mappings": [],
        "min": 0,
        "thresholds": steps or thresholds(),
        "unit": unit,
    }
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": _targets(queries),
        "size": (width, 8),
    }


def _placed(rows):
    """Panels with ids and places: each row's beside each other, as far as they fit."""
    panels, top = [], 0
    for title, content in rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        top, left, height = top + 1, 0, 0
        for panel in content:
            panel = dict(panel)
            width, tall = panel.pop("size")
            if left + width > COLUMNS:
                top, left, height = top + height, 0, 0
            panels.append(panel | {"gridPos": {"h": tall, "w": width, "x": left, "y": top}})
            left, height = left + width, max(height, tall)
        top += height
    return [panel | {"id": number} for number, panel in enumerate(panels, 1)]


def _chosen_by_label(name, label, query, multi):
    all_of_them = {"current": {"selected": True, "text": ["All"], "value": ["$__all"]}} if multi else {"current": {}}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": multi,
        "hide": 0,
        "options": [],
        "regex": "",
    } | all_of_them


def dashboard(uid, title, description, rows):
    """A dashboard of rows of panels. All of ours choose among the same, and lead to each other."""
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }
    job = _chosen_by_label("job", "Cluster", "label_values(moorline_build_info, job)", False)
    instance = _chosen_by_label("instance", "Node", 'label_values(moorline_build_info{job="$job"}, instance)', True)
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["moorline"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "templating": {"list": [source, job, instance]},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "hide": False,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertstate="firing", job="$job"}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{severity}} {{instance}}",
                }
            ]
        },
        "links": [
            {
                "type": "dashboards",
                "title": "Moorline",
                "tags": ["moorline"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": _placed(rows),
    }
