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

{{- define "trimtab.selectorLabels" -}}
app.kubernetes.io/name: {{ include "trimtab.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "trimtab.labels" -}}
{{ include "trimtab.selectorLabels" . }}
app.kubernetes.io/part-of: trimtab
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "trimtab.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "trimtab.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
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
  resources: [finetunejobs/status, evaluations/status]
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
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, list, create, patch] # list: why a pod does not start
{{- end }}
