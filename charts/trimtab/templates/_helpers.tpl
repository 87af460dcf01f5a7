{{- define "trimtab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "trimtab.fullname" -}}
{{- if not (hasKey .Values "imageRegistry") }}
  {{- fail "these are the values of an older chart, without those that came since: helm upgrade --reset-then-reuse-values" }}
{{- end }}
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
app.kubernetes.io/name: {{ include "trimtab.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* The name of what belongs to no namespace. A colon is in no other name, so no two releases share one. */ -}}
{{- define "trimtab.clusterName" -}}
{{- printf "%s:%s" (include "trimtab.fullname" .) .Release.Namespace }}
{{- end }}

{{- /* What the names of the admission policies begin with. They may have no colon. */ -}}
{{- define "trimtab.policyPrefix" -}}
{{- join "." (compact (list (include "trimtab.fullname" .) .Release.Namespace)) }}
{{- end }}

{{- /* All labels of an object, no key twice: (list . "operator" labels...). What comes later replaces what came before,
       a user's the chart's, but for those that selectors use. */ -}}
{{- define "trimtab.componentLabels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
  "app.kubernetes.io/part-of" "trimtab"
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")
-}}
{{- range concat (list $root.Values.commonLabels) (slice . 2) }}
{{- $labels = mergeOverwrite $labels (default dict .) }}
{{- end }}
{{- toYaml (mergeOverwrite $labels (fromYaml (include "trimtab.componentSelector" .))) }}
{{- end }}

{{- /* Objects in one, no key twice: (list annotations...). The later ones win; nothing where there is nothing. */ -}}
{{- define "trimtab.merged" -}}
{{- $merged := dict }}
{{- range . }}
{{- $merged = mergeOverwrite $merged (default dict .) }}
{{- end }}
{{- with $merged }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* An object without the keys that are null: how a default is left out. */ -}}
{{- define "trimtab.chosen" -}}
{{- $chosen := dict }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $chosen $key $value }}
{{- end }}
{{- end }}
{{- toJson $chosen }}
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

{{- /* The reference of an image: (list . "operator"). The whole as a string, or its parts. Never without a registry,
       which a node would add by itself, and never without a version. */ -}}
{{- define "trimtab.image" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}
{{- $image := (index $root.Values $name).image }}
{{- $reference := $image }}
{{- if kindIs "map" $image }}
  {{- $registry := default $root.Values.imageRegistry $image.registry | trimSuffix "/" }}
  {{- $reference = default (printf "trimtab/%s" $name) $image.repository }}
  {{- with $registry }}{{- $reference = printf "%s/%s" . $reference }}{{- end }}
  {{- if or $image.tag (not $image.digest) }}{{- $reference = printf "%s:%s" $reference (default $root.Chart.AppVersion $image.tag) }}{{- end }}
  {{- with $image.digest }}{{- $reference = printf "%s@%s" $reference . }}{{- end }}
{{- end }}
{{- $first := first (splitList "/" $reference) }}
{{- if not (and (contains "/" $reference) (or (regexMatch "[.:]" $first) (eq $first "localhost"))) }}
  {{- fail (printf "%s.image %q names no registry: set imageRegistry, or %s.image.registry, to where you pushed the images" $name $reference $name) }}
{{- end }}
{{- if not (regexMatch "^[^:@]+(:[A-Za-z0-9_][A-Za-z0-9_.-]*|(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?@sha256:[a-f0-9]{64})$" (last (splitList "/" $reference))) }}
  {{- fail (printf "%s.image %q has neither a tag nor a digest" $name $reference) }}
{{- end }}
{{- $reference }}
{{- end }}

{{- /* What work pods get beside the template of their object, in the words of the operator's setting. */ -}}
{{- define "trimtab.workPods" -}}
{{- $work := .Values.work }}
{{- $pods := dict
  "securityContext" (fromJson (include "trimtab.chosen" $work.podSecurityContext))
  "imagePullSecrets" $work.imagePullSecrets
  "nodeSelector" $work.nodeSelector
  "tolerations" $work.tolerations
  "labels" $work.podLabels
  "annotations" $work.podAnnotations
}}
{{- with $work.priorityClassName }}{{- $_ := set $pods "priorityClassName" . }}{{- end }}
{{- toJson $pods }}
{{- end }}

{{- /* What the operator does in a namespace that it watches, and nothing else. */ -}}
{{- define "trimtab.rules" -}}
{{- range include "trimtab.kinds" . | fromJsonArray }}
- apiGroups: [trimtab.dev]
  resources: [{{ .plural }}]
  verbs: [{{ join ", " .verbs }}]
- apiGroups: [trimtab.dev]
  resources: [{{ .plural }}/status]
  verbs: [patch]
{{- end }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete] # patch: suspend, and labels and owner that a Job has lost
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create] # the settings of a run; deleted with their owner
- apiGroups: [""]
  resources: [services]
  verbs: [get, create] # by which the pods of a run find each other
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create] # and by which nobody else reaches them
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [trimtab-agent-keys, trimtab-desired] # what the agents of a namespace mount
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, list, create, patch] # list: why a pod does not start
{{- end }}

{{/* Port of an https address. */}}
{{- define "trimtab.addressPort" -}}
{{- $host := (urlParse .).host -}}
{{- if regexMatch ":[0-9]+$" $host -}}{{ regexFind "[0-9]+$" $host }}{{- else -}}443{{- end -}}
{{- end }}
