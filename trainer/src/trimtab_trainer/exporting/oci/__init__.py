"""An exported model as an OCI image in a registry: what Kubernetes mounts as an image volume, and KServe as a modelcar.

`registry` speaks the distribution protocol (https://github.com/opencontainers/distribution-spec), `keys` reads a
Secret of type kubernetes.io/dockerconfigjson, `image` makes layers, configs, manifests and their index.
"""
