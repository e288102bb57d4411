"""Events as people and scripts see them: the JSON of `wonted events`."""

from typing import Any

from models.clock import rfc3339
from probes.batch import decode
from probes.event import Batch, Event


def describe(payload: bytes) -> list[dict[str, Any]]:
    """Every event of a batch; none of one that cannot be read (the pipeline counts that)."""
    try:
        batch = decode(payload)
    except ValueError:
        return []
    return [to_json(event, batch) for event in batch.events]


def to_json(event: Event, batch: Batch) -> dict[str, Any]:
    """Unknown is null, never missing."""
    process, container, remote = event.process, event.container, event.remote
    on_k8s = container is not None and (container.namespace or container.pod)
    return {
        "time": rfc3339(event.time),
        "workload": event.workload,
        "kind": event.kind,
        "action": event.action,
        "pid": process.pid,
        "vpid": process.vpid,
        "ppid": process.ppid,
        "tid": event.tid,
        "uid": event.uid,
        "comm": process.comm,
        "exe": process.exe,
        "argv": list(process.argv),
        "argv_cut": process.argv_cut,
        "object": event.object,
        "flags": event.flags,
        "result": event.result,
        "remote": remote and {"ip": remote.ip, "port": remote.port, "name": remote.name},
        "container": container
        and {
            "id": container.id,
            "name": container.name,
            "image": container.image,
            "digest": container.digest,
            "ip": list(container.ip),
        },
        "k8s": {
            "namespace": container.namespace,
            "pod": container.pod,
            "owner": container.owner,
            "node": batch.host,
        }
        if container is not None and on_k8s
        else None,
        "login_uid": process.login_uid,
        "tty": process.tty,
        "entered": process.entered,
        "detail": event.detail,
        "count": event.count,
        "host": batch.host,
        "lost": event.lost,
    }
