"""The console: what the command line tells, as pages. It holds no rights of its own, no database and no secret.

`kubectl trimtab ui` starts it on loopback as the user of a kubeconfig; in a cluster it asks with the bearer token of
each request. Installed with the extra `ui`.
"""
