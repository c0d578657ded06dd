{{/* What both programs' pods share. */}}

{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* No program needs root: VDDK talks to ESXi over the network, never to a device of the node. */}}
{{- define "podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "args" -}}
- server
{{- with .Values.logLevel }}
- --log-level={{ . }}
{{- end }}
{{- with .Values.logFormat }}
- --log-format={{ . }}
{{- end }}
{{- end }}

{{- define "env" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: VELERO_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: VELERO_SCRATCH_DIR
  value: /scratch
- name: LD_LIBRARY_PATH
  value: /vddkLibs
- name: AWS_SHARED_CREDENTIALS_FILE
  value: /credentials/cloud
- name: METRICS_ADDRESS
  value: ":8085"
{{- end }}

{{- define "probes" -}}
ports:
- name: metrics
  containerPort: 8085
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  initialDelaySeconds: 10
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{/* Where pods run in a Supervisor; its nodes have no network of pods. Takes the scheduling of one program. */}}
{{- define "supervisorScheduling" -}}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
nodeSelector:
  node-role.kubernetes.io/control-plane: ""
  {{- with .nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
tolerations:
- {key: node-role.kubernetes.io/master, operator: Exists, effect: NoSchedule}
- {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
- {key: kubeadmNode, operator: Equal, value: master, effect: NoSchedule}
{{- with .tolerations }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Scheduling; takes the values of one program. */}}
{{- define "scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "labels" -}}
component: velero
app.kubernetes.io/part-of: velero-plugin-for-vsphere
{{- end }}

{{/* Folders that both programs have from Secrets. The names of volumes are numbers: that of a Secret may be too long. */}}
{{- define "secretMounts" -}}
- name: cloud-credentials
  mountPath: /credentials
  readOnly: true
{{- range $number, $mount := .Values.secretMounts }}
- name: secret-{{ $number }}
  mountPath: {{ $mount.mountPath | quote }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "secretVolumes" -}}
- name: cloud-credentials
  secret:
    secretName: cloud-credentials
    optional: true
{{- range $number, $mount := .Values.secretMounts }}
- name: secret-{{ $number }}
  secret:
    secretName: {{ $mount.secret }}
{{- end }}
{{- end }}

{{/* Names of the Secrets both programs read. */}}
{{- define "secretNames" -}}
- vsphere-backup-repository-key
- velero-repo-credentials
- cloud-credentials
{{- if .Values.supervisor }}
{{- else if or (not .Values.vcenterSecret.namespace) (eq .Values.vcenterSecret.namespace .Release.Namespace) }}
- {{ .Values.vcenterSecret.name }}
{{- end }}
{{- range .Values.storageSecrets }}
- {{ . }}
{{- end }}
{{- end }}
