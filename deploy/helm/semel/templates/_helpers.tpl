{{- define "semel.fullname" -}}
{{- if contains "semel" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-semel" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "semel.selector" -}}
app.kubernetes.io/name: semel
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "semel.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "semel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "semel.secret" -}}
{{- if .Values.existingSecret -}}
{{- .Values.existingSecret -}}
{{- else if .Values.secretEnv -}}
{{- include "semel.fullname" . -}}
{{- end -}}
{{- end -}}

{{- /* What would go wrong only in the cluster is refused here. */ -}}
{{- define "semel.check" -}}
{{- if and .Values.existingSecret .Values.secretEnv -}}
{{- fail "existingSecret and secretEnv exclude each other: put everything into the one" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling and keda would fight over the number of hosts: enable one of them" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.triggers) -}}
{{- fail "keda.triggers is empty: the chart's README has examples" -}}
{{- end -}}
{{- if .Values.embedded.enabled -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "an embedded store takes one host: it can't be combined with autoscaling or keda" -}}
{{- end -}}
{{- else if not (include "semel.secret" .) -}}
{{- fail "no store: set existingSecret (or secretEnv) with SEMEL_STORE, the URL of a shared store, or embedded.enabled" -}}
{{- end -}}
{{- if and .Values.secretEnv (not .Values.embedded.enabled) (not (hasKey .Values.secretEnv "SEMEL_STORE")) -}}
{{- fail "secretEnv lacks SEMEL_STORE, the URL of a shared store" -}}
{{- end -}}
{{- if and .Values.http.enabled (not .Values.http.tlsSecret) -}}
{{- fail "http needs http.tlsSecret: the host refuses to listen for other machines without TLS" -}}
{{- end -}}
{{- end -}}

{{- define "semel.pod" -}}
metadata:
  labels:
    {{- include "semel.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Hosts read both at their start only, so a change of them has to start them anew.
    semel/config-checksum: {{ .Values.config | sha256sum }}
    {{- if .Values.secretEnv }}
    semel/secret-checksum: {{ .Values.secretEnv | toJson | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "semel.fullname" . }}
  # The host has nothing to ask of Kubernetes.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: semel
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --plugins, /plugins, --log-format, json]
      env:
        # The host makes its cache below this, in a directory of its own: it runs nothing from one
        # that others can write to, as they can to the volume itself.
        - name: XDG_CACHE_HOME
          value: /var/cache
        # For the other commands too, by `kubectl exec`.
        - name: SEMEL_CONFIG
          value: /etc/semel/config/semel.toml
        {{- if .Values.embedded.enabled }}
        - name: SEMEL_STORE
          value: redb:/var/lib/semel/data
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "semel.secret" . }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      {{- if .Values.http.enabled }}
      ports:
        - name: https
          containerPort: {{ .Values.http.port }}
      startupProbe:
        httpGet: {path: /healthz, port: https, scheme: HTTPS}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: https, scheme: HTTPS}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: https, scheme: HTTPS}
        periodSeconds: 5
        timeoutSeconds: 3
      lifecycle:
        # Time for proxies to hear that this host is leaving, before it stops to listen.
        preStop:
          exec:
            command: [sleep, "5"]
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/semel/config
          readOnly: true
        - name: cache
          mountPath: /var/cache
        - name: {{ ternary "data" "scratch" .Values.embedded.enabled }}
          mountPath: /var/lib/semel
        {{- if .Values.plugins.volume }}
        - name: plugins
          mountPath: /plugins
          readOnly: true
        {{- end }}
        {{- if .Values.http.enabled }}
        - name: tls
          mountPath: /etc/semel/tls
          readOnly: true
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "semel.fullname" . }}
    - name: cache
      emptyDir:
        sizeLimit: {{ .Values.cacheSize }}
    {{- if not .Values.embedded.enabled }}
    # HOME, for libraries that look for one.
    - name: scratch
      emptyDir:
        sizeLimit: 64Mi
    {{- end }}
    {{- with .Values.plugins.volume }}
    - name: plugins
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if .Values.http.enabled }}
    - name: tls
      secret:
        secretName: {{ .Values.http.tlsSecret }}
        defaultMode: 0440
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if .Values.topologySpreadConstraints }}
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "semel.selector" . | nindent 10 }}
    {{- end }}
{{- end -}}
