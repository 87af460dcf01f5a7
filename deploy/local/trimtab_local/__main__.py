"""The command line: python3 -m trimtab_local up | down | status | kubectl | load | images ..."""

import argparse
import json
import os
import sys

from trimtab_local import binaries, toolchain
from trimtab_local.cluster import Cluster
from trimtab_local.progress import Failed, say


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="trimtab_local", description="A real Kubernetes cluster on this machine.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--name", type=int, default=1, help="number of the cluster, 1 to 99 (default 1)")
        return made

    up = command("up", "start a cluster, print the path of its kubeconfig")
    up.add_argument("--control-plane", action="store_true", help="etcd, API server and controller manager only")
    up.add_argument("--gpus", type=int, default=8, help="pretend GPUs of the node (default 8)")
    command("down", "stop a cluster and check that nothing is left of it")
    command("status", "is it running, and what does its node say")
    command("kubeconfig", "print the path of its kubeconfig")
    kubectl = command("kubectl", "run kubectl against it: kubectl [--name N] -- get pods")
    kubectl.add_argument("arguments", nargs="*")
    enter = command("enter", "run a command inside the node's namespaces: enter [--name N] -- ps aux")
    enter.add_argument("arguments", nargs="*", default=["bash"])
    kubelet = command("kubelet", "freeze the kubelet (the node is lost to the cluster) or thaw it")
    kubelet.add_argument("action", choices=["stop", "continue"])
    load = command("load", "put images into the node")
    load.add_argument("images", nargs="+", metavar="IMAGE")

    images = commands.add_parser("images", help="build images; the last line is JSON: image -> full name with tag")
    images.add_argument("images", nargs="*", metavar="NAME", help="which (default: all)")
    throttled = commands.add_parser(
        "throttled",
        help="run a command and the clusters that it starts with fewer processors: throttled -- make test-e2e",
    )
    throttled.add_argument("--cpus", type=float, default=1.0, help="how many (default 1)")
    commands.add_parser("binaries", help="build the programs only, print their folder")
    return top


def main() -> int:
    words = sys.argv[1:]
    rest: list[str] = []
    if "--" in words:  # what follows belongs to the other program, options and all
        words, rest = words[: words.index("--")], words[words.index("--") + 1 :]
    given = parser().parse_args(words)
    if given.command == "binaries":
        print(binaries.ensure())
        return 0
    toolchain.require_root()
    if given.command == "images":
        from trimtab_local import images

        print(json.dumps(images.build(given.images)))
        return 0

    if given.command == "throttled":
        from trimtab_local import throttle

        if not rest:
            raise Failed("throttled: which command? It follows after --")
        return throttle.run(given.cpus, rest)

    cluster = Cluster(given.name, getattr(given, "control_plane", False), getattr(given, "gpus", 8))
    match given.command:
        case "up":
            print(cluster.up())
        case "down":
            cluster.down()
        case "status":
            return status(cluster)
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "kubectl":
            program = str(cluster.program("kubectl"))
            os.execv(program, [program, "--kubeconfig", str(cluster.kubeconfig), *given.arguments, *rest])
        case "enter":
            line = cluster.enter(*(rest or given.arguments))
            os.execvp(line[0], line)
        case "kubelet":
            cluster.kubelet(given.action)
        case "load":
            cluster.load(*given.images)
    return 0


def status(cluster: Cluster) -> int:
    mode = cluster.mode()
    if not mode:
        print(f"cluster {cluster.instance.number}: not running")
        return 1
    print(f"cluster {cluster.instance.number}: {mode}, process {cluster.pid()}, {cluster.instance.api}")
    print(f"KUBECONFIG={cluster.kubeconfig}")
    if mode == "node":
        print(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        say(f"failed: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
