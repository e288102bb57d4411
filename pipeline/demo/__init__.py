"""The demo: a workload, a minute of learning, an attack through the workload, and what people are told of it."""


def main(engine: str = "auto", learn_s: float = 60.0, keep: bool = False) -> int:
    """Play it; the exit code. `engine`: auto, docker, runc or plain. `keep`: leave the data directory for a look."""
    from pipeline.demo.play import play

    return play(engine, learn_s, keep)
