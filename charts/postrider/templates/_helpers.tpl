{{- define "postrider.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "postrider.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "postrider.labels" -}}
{{ include "postrider.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* On the operator's pods and its ClusterRoleBinding, whatever they are called: kubectl postrider looks for it. */ -}}
{{- define "postrider.operatorLabel" -}}
postrider.dev/component: operator
{{- end -}}

{{- define "postrider.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "postrider.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "postrider.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "postrider.publicURL" -}}
{{- default (printf "http://%s.%s.svc:%d" (include "postrider.fullname" .) .Release.Namespace (int .Values.service.port)) .Values.publicURL -}}
{{- end -}}

{{- /* What the operator needs in each namespace it watches. It deletes nothing but what notifications stand for. */ -}}
{{- define "postrider.namespacedRules" -}}
- apiGroups: [postrider.dev]
  resources: [eventprojects, eventdestinations]
  verbs: [get, list, watch]
- apiGroups: [postrider.dev]
  resources: [eventprojects/status, eventdestinations/status]
  verbs: [patch, update]
{{- if .Values.rbac.notifications }}
- apiGroups: [postrider.dev]
  resources: [eventdestinations]
  verbs: [create, update, delete]
{{- end }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
{{- /* Read when a destination refers to one. */}}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* Service-account tokens of publishers are checked by the API server. */ -}}
{{- define "postrider.clusterRules" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end -}}
