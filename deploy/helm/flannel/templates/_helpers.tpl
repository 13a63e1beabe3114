{{- define "flannel.labels" -}}
app: flannel
k8s-app: flannel
tier: node
{{- end }}

{{- define "flannel.image" -}}
{{ .Values.flannel.image.repository }}:{{ .Values.flannel.image.tag }}
{{- end }}

{{- define "flannel.pluginImage" -}}
{{- with .Values.flannel.flannel_cni.image -}}
{{- if .repository }}{{ .repository }}:{{ .tag }}{{ else }}{{ include "flannel.image" $ }}{{ end }}
{{- end -}}
{{- end }}

{{/* The network configuration, as an object: what is not set is left out. */}}
{{- define "flannel.netConf" -}}
{{- $flannel := .Values.flannel -}}
{{- $backend := dict "Type" $flannel.backend -}}
{{- $keys := dict -}}
{{- if eq $flannel.backend "vxlan" -}}
{{- $keys = dict "backendPort" "Port" "mtu" "MTU" "vni" "VNI" "GBP" "GBP" "directRouting" "DirectRouting" "macPrefix" "MacPrefix" -}}
{{- else if eq $flannel.backend "wireguard" -}}
{{- $keys = dict "backendPort" "ListenPort" "backendPortv6" "ListenPortV6" "mtu" "MTU" "psk" "PSK" "tunnelMode" "Mode" "keepaliveInterval" "PersistentKeepaliveInterval" -}}
{{- else if eq $flannel.backend "udp" -}}
{{- $keys = dict "backendPort" "Port" -}}
{{- else if eq $flannel.backend "ipip" -}}
{{- $keys = dict "directRouting" "DirectRouting" -}}
{{- end -}}
{{- range $value, $key := $keys -}}
{{- with get $flannel $value -}}
{{- if kindIs "float64" . -}}
{{- $_ := set $backend $key (int64 .) -}}
{{- else if eq $value "tunnelMode" -}}
{{- /* Upstream's template needs quotes within the value. */ -}}
{{- $_ := set $backend $key (trimAll "\"" .) -}}
{{- else -}}
{{- $_ := set $backend $key . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $conf := dict "Backend" $backend "EnableNFTables" $flannel.enableNFTables -}}
{{- if .Values.podCidr -}}
{{- $_ := set $conf "Network" .Values.podCidr -}}
{{- else -}}
{{- $_ := set $conf "EnableIPv4" false -}}
{{- end -}}
{{- if .Values.podCidrv6 -}}
{{- $_ := set $conf "IPv6Network" .Values.podCidrv6 -}}
{{- $_ := set $conf "EnableIPv6" true -}}
{{- end -}}
{{- $conf | toPrettyJson -}}
{{- end }}
