{{- define "moorline.name" -}}
{{- /* Room for -nodes, -api and the numbers of pods. */ -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "moorline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moorline.labels" -}}
{{ include "moorline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- /* The DNS name of a pod: [context, number]. */ -}}
{{- define "moorline.host" -}}
{{- $ := index . 0 -}}{{- $name := include "moorline.name" $ -}}
{{ printf "%s-%d.%s-nodes.%s.svc.%s" $name (index . 1 | int) $name $.Release.Namespace $.Values.cluster.domain }}
{{- end }}

{{- /* The node id of a pod: [context, number]. */ -}}
{{- define "moorline.id" -}}
{{- $special := index (index . 0).Values.nodes (index . 1 | toString) | default dict -}}
{{ $special.id | default (add1 (index . 1)) | int }}
{{- end }}

{{- /* Whether a pod is one of those that the cluster was made of: [context, number]. */ -}}
{{- define "moorline.founds" -}}
{{- $ := index . 0 -}}{{- $pod := index . 1 | int -}}
{{- $special := index $.Values.nodes ($pod | toString) | default dict -}}
{{- if and (lt $pod ($.Values.cluster.founders | int)) (not $special.id) }}true{{ end -}}
{{- end }}

{{- /* What every node's file says alike; a change of it restarts the pods one after the other. */ -}}
{{- define "moorline.shared" -}}
[listen]
admin = "{{ if .Values.admin.podNetwork }}0.0.0.0{{ else }}127.0.0.1{{ end }}:9400"
api = "0.0.0.0:9443"
cluster = "0.0.0.0:7400"
{{- range $name, $listener := .Values.listeners }}
{{ $name }} = "0.0.0.0:{{ $listener.port | int }}"
{{- end }}
{{- with .Values.tls.secret }}

[tls]
cert = "/etc/moorline-tls/tls.crt"
key = "/etc/moorline-tls/tls.key"
{{- end }}
{{- with .Values.security.keySecret }}

[security]
key-file = "/etc/moorline-key/cluster.key"
{{- end }}
{{- with .Values.config }}

{{ . | trim }}
{{- end }}
{{- end }}

{{- /* One node's file: [context, number]. */ -}}
{{- define "moorline.file" -}}
{{- $ := index . 0 -}}{{- $pod := index . 1 | int -}}
{{- $special := index $.Values.nodes ($pod | toString) | default dict -}}
{{- $id := include "moorline.id" (list $ $pod) -}}
[node]
id = {{ $id }}
data-dir = "/var/lib/moorline/node{{ $id }}"

[cluster]
name = {{ $.Values.cluster.name | quote }}
shards = {{ $.Values.cluster.shards | int }}
replicas = {{ $.Values.cluster.copies | int }}
{{- if include "moorline.founds" (list $ $pod) }}
peers = [
{{- range $other := until ($.Values.cluster.founders | int) }}
{{- if include "moorline.founds" (list $ $other) }}
    { id = {{ include "moorline.id" (list $ $other) }}, address = "{{ include "moorline.host" (list $ $other) }}:7400" },
{{- end }}
{{- end }}
]
{{- else }}
address = "{{ include "moorline.host" (list $ $pod) }}:7400"
{{- with $special.token }}
{{- if not $.Values.admin.podNetwork }}{{ fail "nodes.*.token: joining needs admin.podNetwork=true" }}{{ end }}
join = [
{{- range $other := until ($.Values.cluster.founders | int) }}
{{- if include "moorline.founds" (list $ $other) }}
    "{{ include "moorline.host" (list $ $other) }}:9400",
{{- end }}
{{- end }}
]
token = {{ . | quote }}
{{- end }}
{{- end }}
{{- with $.Values.cluster.tls.secret }}

[cluster.tls]
ca = "/etc/moorline-cluster-tls/ca.pem"
cert = "/etc/moorline-cluster-tls/node{{ $id }}.pem"
key = "/etc/moorline-cluster-tls/node{{ $id }}.key"
domain = {{ $.Values.cluster.tls.domain | quote }}
{{- end }}

{{ include "moorline.shared" $ }}
{{- end }}
