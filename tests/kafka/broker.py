"""A real Apache Kafka broker from its jars: one node, KRaft, in a directory of its own."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "kafka"
POM = Path(__file__).with_name("pom.xml")
JAVA = [
    "java",
    "-Xmx256m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]
CLUSTER = "AAAAAAAAAAAAAAAAAAAAAQ"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={logs}
num.network.threads=1
num.io.threads=2
background.threads=2
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=10485760
log.cleaner.threads=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
"""


class Missing(Exception):
    """What is not there to run a broker, as a sentence."""


def jars() -> Path:
    """The folder of the jars; fetched by Maven the first time, afterwards without a network."""
    if shutil.which("java") is None:
        raise Missing("no Java to run Kafka: apt-get install openjdk-17-jre-headless")
    folder = CACHE / "lib"
    stamp = CACHE / "complete"
    if stamp.exists() and stamp.read_text() == POM.read_text():
        return folder
    if shutil.which("mvn") is None:
        raise Missing("no Maven to fetch Kafka's jars: apt-get install maven")
    shutil.rmtree(folder, ignore_errors=True)
    command = ["mvn", "-B", "-q", f"-Dmaven.repo.local={CACHE / 'm2'}", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}", "-f", str(POM)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=POM.parent)
    if done.returncode:
        raise Missing(f"Maven could not fetch Kafka's jars (is there a network?): {done.stdout[-400:].strip()}")
    stamp.write_text(POM.read_text())
    return folder


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Broker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, controller = _free_ports(2)
        self.classpath = f"{jars()}/*"
        self.properties = folder / "server.properties"
        self.properties.write_text(PROPERTIES.format(port=self.port, controller=controller, logs=folder / "logs"))
        subprocess.run(
            [*JAVA, "-cp", self.classpath, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.properties],
            check=True,
            capture_output=True,
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, timeout: float = 60) -> None:
        with open(self.folder / "broker.log", "ab") as output:
            self.process = subprocess.Popen(
                [*JAVA, "-cp", self.classpath, "kafka.Kafka", self.properties],
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "LOG_DIR": str(self.folder)},
            )
        asyncio.run(self._ready(time.monotonic() + timeout))

    async def _ready(self, until: float) -> None:
        while True:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"Kafka did not start:\n{(self.folder / 'broker.log').read_text()[-3000:]}")
            admin = AIOKafkaAdminClient(bootstrap_servers=self.server, request_timeout_ms=2000)
            try:
                await admin.start()
                if (await admin.describe_cluster())["brokers"]:
                    return
            except (KafkaError, OSError):
                await asyncio.sleep(0.1)
            finally:
                await admin.close()

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
