#!/bin/bash
# Process 1 of the node: it runs inside the node's own mount, process and network namespaces, starts the components
# and reaps what they leave behind. Killing it ends everything in the node; the kernel then drops its mounts,
# interfaces and firewall rules. cluster.py starts it and sets the variables.
set -euo pipefail
cd "$FOLDER"
export PATH="$BIN:$PATH"

# Who this process is for the outside; /proc is still the host's here. The start time tells a reused number apart.
read -r stat </proc/self/stat && echo "$stat" >process && mv process pid1
mount -t proc proc /proc

if [ "$MODE" = node ]; then
  mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock
  for place in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers; do
    mkdir -p "$place" "$FOLDER/disk$place" && mount --bind "$FOLDER/disk$place" "$place"
  done
  printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NODE" >hosts && mount --bind hosts /etc/hosts
  mount --make-rshared /
fi

ip link set lo up
until ip link show n0 >/dev/null 2>&1; do sleep 0.02; done # the outside gives the node its interface
ip address add "$ADDRESS/30" dev n0 && ip link set n0 up
# Packets to services need some route before their address is translated; there is no default route, so that nothing
# in the node can reach out of this machine. A bridge without ports does it (dummy devices are not in every kernel).
ip link add svc0 type bridge && ip link set svc0 up && ip route add "$SERVICES" dev svc0
echo 1 >/proc/sys/net/ipv4/ip_forward

export GOGC=400 # memory is there, processor time is not: collecting garbage took a quarter of the API server's
mkdir -p log
run() { # NAME ARGUMENTS: start a component, keep its log and its process number
  "$@" >"log/$1.log" 2>&1 &
  echo "$!" >"log/$1.pid"
}

[ "$MODE" != node ] || run containerd --config containerd.toml
run etcd --data-dir etcd --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380
run kube-apiserver --etcd-servers http://127.0.0.1:2379 \
  --bind-address 0.0.0.0 --advertise-address "$ADDRESS" --secure-port 6443 --service-cluster-ip-range "$SERVICES" \
  --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt \
  --authentication-config authentication.yaml --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
  --allow-privileged=true --default-not-ready-toleration-seconds 30 --default-unreachable-toleration-seconds 30 \
  --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key \
  --kubelet-client-certificate pki/apiserver-kubelet.crt --kubelet-client-key pki/apiserver-kubelet.key \
  --kubelet-certificate-authority pki/ca.crt --kubelet-preferred-address-types InternalIP \
  --requestheader-client-ca-file pki/front-ca.crt --requestheader-allowed-names front-proxy-client \
  --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
  --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing=true \
  --proxy-client-cert-file pki/front-client.crt --proxy-client-key-file pki/front-client.key
until kubectl --kubeconfig admin.kubeconfig get --raw /readyz >/dev/null 2>&1; do sleep 0.1; done
# Short grace times, so that a test of a lost node takes half a minute.
run kube-controller-manager --kubeconfig kube-controller-manager.kubeconfig --leader-elect=false \
  --use-service-account-credentials --root-ca-file pki/ca.crt --service-account-private-key-file pki/sa.key \
  --cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key \
  --service-cluster-ip-range "$SERVICES" --allocate-node-cidrs --cluster-cidr "$PODS" --node-cidr-mask-size 24 \
  --node-monitor-period=2s --node-monitor-grace-period=16s

if [ "$MODE" = node ]; then
  run kube-scheduler --kubeconfig kube-scheduler.kubeconfig --leader-elect=false
  until [ -S containerd.sock ]; do sleep 0.1; done # without it the kubelet gives up at once
  run kubelet --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override "$NODE" --node-ip "$ADDRESS"
  run kube-proxy --config kube-proxy.yaml
  run kube-network-policies --kubeconfig admin.kubeconfig --hostname-override "$NODE"
  # The first packet of a connection waits for its verdict there, unless root on the node sends it: the kubelet's probes.
  # kube-network-policies would say this to nf_tables itself, but not every kernel has a queue there (CONFIG_NFT_QUEUE).
  iptables -t mangle -A POSTROUTING -m owner --uid-owner 0 -j RETURN
  iptables -t mangle -A POSTROUTING -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass
  iptables -t mangle -A INPUT -i veth+ -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass
fi
touch started
while :; do wait -n || true; sleep 1; done
