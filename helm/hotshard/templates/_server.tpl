{{/* What the pods of the DaemonSet and of the StatefulSet have in common: one cache server. */}}

{{/* The server's configuration, from {root, dirs, weight}: the user's keys, and over them those that follow from
     what else the chart makes. */}}
{{- define "hotshard.config" -}}
{{- $values := .root.Values -}}
{{- $config := deepCopy $values.config -}}
{{- $listen := $values.server.listenAddress -}}
{{- $ports := $values.server.ports -}}
{{- $config = set $config "origins" $values.origins -}}
{{- $config = set $config "cache_dirs" .dirs -}}
{{- $grpc := dict "listen" (printf "%s:%d" $listen (int $ports.grpc)) -}}
{{- $bulk := dict "listen" (printf "%s:%d" $listen (int $ports.bulk)) -}}
{{- if ne $values.tls.mode "none" -}}
{{- $tls := dict -}}
{{- range $key, $file := dict "certificate" "tls.crt" "key" "tls.key" "client_ca" "ca.crt" -}}
{{- $tls = set $tls $key (printf "/etc/hotshard-tls/%s" $file) -}}
{{- end -}}
{{- $grpc = set $grpc "tls" (merge (dict "server_name" (include "hotshard.tlsName" .root)) $tls) -}}
{{- if $values.tls.bulk -}}
{{- $bulk = set $bulk "tls" $tls -}}
{{- end -}}
{{- end -}}
{{- if $values.bulkSecret.name -}}
{{- $bulk = set $bulk "secret_file" "/etc/hotshard-bulk/secret" -}}
{{- end -}}
{{- $config = set $config "grpc" (merge $grpc (default dict $config.grpc)) -}}
{{- $config = set $config "bulk" (merge $bulk (default dict $config.bulk)) -}}
{{- $cluster := dict "provider" "none" -}}
{{- if $values.cluster.enabled -}}
{{- $cluster = dict "provider" "kubernetes" "service" (include "hotshard.peersName" .root) "port_name" "grpc" -}}
{{- end -}}
{{- with .weight -}}
{{- $cluster = set $cluster "weight" (int .) -}}
{{- end -}}
{{- $config = set $config "cluster" (merge $cluster (default dict $config.cluster)) -}}
{{- $config = set $config "admin" (merge (dict "listen" (printf "%s:%d" $listen (int $ports.admin))) (default dict $config.admin)) -}}
{{- $config = set $config "local_socket" (merge (dict "path" "/run/hotshard/local.sock") (default dict $config.local_socket)) -}}
{{- $config = set $config "log" (merge (default dict $config.log) (dict "format" "json")) -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "hotshard.peersName" -}}
{{- printf "%s-peers" (include "hotshard.fullname" .) -}}
{{- end -}}

{{/* The name in the certificate by which members know each other, whatever their addresses are. */}}
{{- define "hotshard.tlsName" -}}
{{- printf "%s.%s.svc" (include "hotshard.peersName" .) .Release.Namespace -}}
{{- end -}}

{{- define "hotshard.tlsSecret" -}}
{{- ternary .Values.tls.secretName (printf "%s-tls" (include "hotshard.fullname" .)) (eq .Values.tls.mode "secret") -}}
{{- end -}}

{{/* Time for requests under way after the server was told to stop: its own, and some for the pod. */}}
{{- define "hotshard.graceSeconds" -}}
{{- $grace := default 20 .Values.config.shutdown_grace_s -}}
{{- add .Values.server.drainSeconds (ceil $grace) 10 -}}
{{- end -}}

{{- define "hotshard.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Annotations of a server's pod; its first container, which reads nothing, gets no AWS token. */}}
{{- define "hotshard.podAnnotations" -}}
checksum/config: {{ .config | sha256sum }}
{{- if eq .root.Values.identity.type "irsa" }}
eks.amazonaws.com/skip-containers: prepare
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The server's container, from {root, resources, mounts, seLinuxOptions}. */}}
{{- define "hotshard.serverContainer" -}}
{{- $values := .root.Values -}}
name: server
image: {{ include "hotshard.serverImage" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
command: [python3, -m, cache_server, --config, /etc/hotshard/hotshard.yaml]
env:
  - name: HOTSHARD_GRPC__ADVERTISE
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  {{- with $values.identity.region }}
  - name: AWS_REGION
    value: {{ . | quote }}
  {{- end }}
  {{- with $values.server.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: grpc, containerPort: {{ $values.server.ports.grpc }}, protocol: TCP}
  - {name: bulk, containerPort: {{ $values.server.ports.bulk }}, protocol: TCP}
  - {name: admin, containerPort: {{ $values.server.ports.admin }}, protocol: TCP}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div $values.server.startupSeconds 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 30
  timeoutSeconds: 25
  failureThreshold: {{ max 1 (div $values.server.livenessSeconds 30) }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  preStop:
    sleep: {seconds: {{ $values.server.drainSeconds }}}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  runAsUser: {{ $values.server.runAsUser | int64 }}
  runAsGroup: {{ $values.server.runAsUser | int64 }}
  runAsNonRoot: {{ ne (int64 $values.server.runAsUser) 0 }}
  {{- with .seLinuxOptions }}
  seLinuxOptions: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "hotshard.restricted" . | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/hotshard, readOnly: true}
  - {name: run, mountPath: /run/hotshard}
  - {name: tmp, mountPath: /tmp}
  {{- if $values.cluster.enabled }}
  - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
  {{- if ne $values.tls.mode "none" }}
  - {name: tls, mountPath: /etc/hotshard-tls, readOnly: true}
  {{- end }}
  {{- if $values.bulkSecret.name }}
  - {name: bulk-secret, mountPath: /etc/hotshard-bulk, readOnly: true}
  {{- end }}
  {{- with .mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.server.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Volumes of the server's container, from {root, configName}; those for data and sockets are the caller's. */}}
{{- define "hotshard.serverVolumes" -}}
{{- $values := .root.Values -}}
- name: config
  configMap: {name: {{ .configName }}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if $values.cluster.enabled }}
# The token of the API server, for this container alone: the pod's other containers have none.
- name: api-token
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- if ne $values.tls.mode "none" }}
- name: tls
  secret: {secretName: {{ include "hotshard.tlsSecret" .root }}, defaultMode: 0444}
{{- end }}
{{- if $values.bulkSecret.name }}
- name: bulk-secret
  secret: {secretName: {{ $values.bulkSecret.name }}, defaultMode: 0444}
{{- end }}
{{- with $values.server.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
