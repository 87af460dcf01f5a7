{{- define "trimtab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "trimtab.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "trimtab.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Labels that selectors use, of a component: (list . "operator") */ -}}
{{- define "trimtab.componentSelector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "trimtab.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "trimtab.componentLabels" -}}
{{- $root := index . 0 -}}
{{ include "trimtab.componentSelector" . }}
app.kubernetes.io/part-of: trimtab
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "trimtab.selectorLabels" -}}
{{ include "trimtab.componentSelector" (list . "operator") }}
{{- end }}

{{- define "trimtab.labels" -}}
{{ include "trimtab.componentLabels" (list . "operator") }}
{{- end }}

{{- define "trimtab.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "trimtab.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The namespaces that are watched, as a NamespaceSelector of the Prometheus Operator. */ -}}
{{- define "trimtab.watched" -}}
{{- if .Values.watchNamespaces -}}
matchNames:
  {{- toYaml .Values.watchNamespaces | nindent 2 }}
{{- else -}}
any: true
{{- end }}
{{- end }}

{{- /* The Secret with the keys that sign documents for agents. */ -}}
{{- define "trimtab.agentKeySecret" -}}
{{- default (printf "%s-agent-key" (include "trimtab.fullname" .)) .Values.agentKey.existingSecret }}
{{- end }}

{{- /* The reference of an image: (list . "operator") */ -}}
{{- define "trimtab.image" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}
{{- default (printf "trimtab/%s:%s" $name $root.Chart.AppVersion) (index $root.Values $name).image }}
{{- end }}

{{- /* What the operator does in a namespace that it watches, and nothing else. */ -}}
{{- define "trimtab.rules" -}}
- apiGroups: [trimtab.dev]
  resources: [finetunejobs, evaluations]
  verbs: [get, list, watch, delete] # delete: ttlSecondsAfterFinished
- apiGroups: [trimtab.dev]
  resources: [adapterrollouts]
  verbs: [get, list, watch]
- apiGroups: [trimtab.dev]
  resources: [finetunejobs/status, evaluations/status, adapterrollouts/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete] # patch: suspend
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create] # the settings of a run; deleted with their owner
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [trimtab-agent-keys, trimtab-desired] # what the agents of a namespace mount
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, list, create, patch] # list: why a pod does not start
{{- end }}
