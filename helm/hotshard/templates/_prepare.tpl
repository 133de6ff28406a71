{{/* Gives the directories of the node to the server's user, and looks at what those for data lie on. The arguments are
     the user, whether instance store is required, the directory of the socket, and the directories for data. */}}
{{- define "hotshard.prepareScript" -}}
uid=$1 instance_store=$2 sockets=$3
shift 3
for dir in "$@"; do
  [ "$instance_store" = true ] || break
  disk=${SYS:-/sys}/dev/block/$(stat -c %Hd:%Ld "$dir")
  models=$(cat "$disk/device/model" "$disk/../device/model" "$disk"/slaves/*/device/model \
    "$disk"/slaves/*/../device/model 2>/dev/null | sed 's/ *$//' | sort -u)
  if [ "$models" != 'Amazon EC2 NVMe Instance Storage' ]; then
    echo "$dir lies on '${models:-an unknown disk}', not on instance store: set the disks up for Kubernetes" \
      "(docs/KUBERNETES.md), name their directories in cache.dirs, or set cache.requireInstanceStore=false" >&2
    exit 1
  fi
done
for dir in "$sockets" "$@"; do
  [ "$(stat -c %u "$dir")" = "$uid" ] || chown -R "$uid:$uid" "$dir"
done
{{- end -}}
