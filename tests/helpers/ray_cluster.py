"""Ray clusters of several nodes on this machine; needs Ray, which `make cluster-check` installs."""

from __future__ import annotations

import socket


def start_cluster(nodes):
    """A cluster with a head that computes nothing, and nodes of one core each; returns it and the nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    add_node(cluster, cores=0)
    return cluster, [add_node(cluster) for _ in range(nodes)]


def add_node(cluster, cores=1):
    """Add a node. Ray waits for 30 seconds, which is too short on a busy machine: tried three times."""
    for tries_left in (2, 1, 0):
        try:
            return cluster.add_node(num_cpus=cores, **free_ports())
        except Exception:  # Ray raises no other one
            if not tries_left:
                raise
    raise AssertionError


def free_ports():
    """Ports for a node's helpers: one that chooses them itself waits for files, and gives up on a busy machine."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: server.getsockname()[1] for name, server in zip(names, servers, strict=True)}
    for server in servers:
        server.close()
    return {**ports, "include_dashboard": False}
