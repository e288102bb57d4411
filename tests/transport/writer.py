"""Writes batches to a log for ever and says which are in: `python tests/transport/writer.py DIR SEED`."""

import random
import sys

from pipeline.transport.log import Entry, Log

directory, seed = sys.argv[1], int(sys.argv[2])
choose = random.Random(seed)
log = Log(directory, segment=200_000)
log.create("t", 3)
while True:
    partition = choose.randrange(3)
    sizes = [choose.choice([1, 100, 8000, 70_000]) for _ in range(choose.randrange(1, 5))]
    marks = [choose.randrange(256) for _ in sizes]
    values = [bytes([mark]) * size for size, mark in zip(sizes, marks, strict=True)]
    first = log.write("t", partition, [Entry(None, value) for value in values])
    for n, value in enumerate(values):
        sys.stdout.write(f"wrote {partition} {first + n} {len(value)} {value[0]}\n")
    sys.stdout.flush()
    if choose.randrange(50) == 0:
        log.sync()()
