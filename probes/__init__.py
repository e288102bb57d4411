"""The node's agent: what the kernel saw, resolved to workloads and sent on in batches. The only privileged part."""
