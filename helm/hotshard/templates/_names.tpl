{{/* Names, labels and images. */}}

{{- define "hotshard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What tells the pods of this release apart. It is in selectors, which cannot be changed: never touch it. */}}
{{- define "hotshard.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hotshard.labels" -}}
{{ include "hotshard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hotshard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hotshard.serviceAccount" -}}
{{- default (include "hotshard.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* One image from {chart, image}: by digest if there is one. */}}
{{- define "hotshard.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "hotshard.serverImage" -}}
{{- include "hotshard.image" (dict "chart" .Chart "image" .Values.image) -}}
{{- end -}}

{{/* The keeper's own image, or that of everything else. */}}
{{- define "hotshard.keeperImage" -}}
{{- $image := ternary .Values.keeper.image .Values.image (ne .Values.keeper.image.repository "") -}}
{{- include "hotshard.image" (dict "chart" .Chart "image" $image) -}}
{{- end -}}

{{- define "hotshard.kubeAtLeast" -}}
{{- if semverCompare (printf ">=%s-0" .version) .root.Capabilities.KubeVersion.Version -}}yes{{- end -}}
{{- end -}}
