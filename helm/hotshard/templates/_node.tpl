{{/* Where a node keeps cached data: {path on the node, mountPath, capacity_bytes} of each directory, as JSON. */}}
{{- define "hotshard.cacheDirs" -}}
{{- $default := list (dict "path" (printf "%s/plugins/%s/cache" .Values.node.kubeletDir (include "hotshard.fullname" .))) -}}
{{- $dirs := list -}}
{{- range $index, $dir := default $default .Values.cache.dirs -}}
{{- $dirs = append $dirs (set (deepCopy $dir) "mountPath" (printf "/cache/%d" $index)) -}}
{{- end -}}
{{- dict "dirs" $dirs | toJson -}}
{{- end -}}

{{- define "hotshard.nodeConfig" -}}
{{- $dirs := list -}}
{{- range (include "hotshard.cacheDirs" . | fromJson).dirs -}}
{{- $dirs = append $dirs (merge (dict "path" .mountPath) (pick . "capacity_bytes")) -}}
{{- end -}}
{{- include "hotshard.config" (dict "root" . "dirs" $dirs "weight" "") -}}
{{- end -}}

{{- define "hotshard.dedicatedConfig" -}}
{{- $dir := dict "path" "/cache/0" "capacity_bytes" .Values.dedicated.storage.capacity_bytes -}}
{{- include "hotshard.config" (dict "root" . "dirs" (list $dir) "weight" .Values.dedicated.weight) -}}
{{- end -}}

{{/* What the server of a node mounts beside what every server does. */}}
{{- define "hotshard.nodeMounts" -}}
{{- range (include "hotshard.cacheDirs" . | fromJson).dirs }}
- {name: {{ base .mountPath | printf "cache-%s" }}, mountPath: {{ .mountPath }}}
{{- end }}
{{- range .Values.node.hostMounts }}
- {name: {{ .name }}, mountPath: {{ .mountPath }}, readOnly: true, mountPropagation: HostToContainer}
{{- end }}
{{- end -}}
