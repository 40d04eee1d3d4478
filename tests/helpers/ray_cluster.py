"""Ray clusters of several nodes on this machine; needs Ray, which `make cluster-check` installs."""

from __future__ import annotations

import socket


def start_cluster(nodes):
    """A cluster with a head that computes nothing, and nodes of one core each; returns it and the nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=0, **free_ports())
    return cluster, [add_node(cluster) for _ in range(nodes)]


def add_node(cluster):
    """Add a node of one core."""
    return cluster.add_node(num_cpus=1, **free_ports())


def free_ports():
    """Ports for a node's helpers: one that chooses them itself waits for files, and gives up on a busy machine."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: server.getsockname()[1] for name, server in zip(names, servers, strict=True)}
    for server in servers:
        server.close()
    return {**ports, "include_dashboard": False}
