"""Drain3 beside our Drain on the same messages: lines a CPU second, each on one core, turn about.

Both read a file's messages, the lines without their headers, once before the clock starts, so both trees are warm. Drain3 has its
default settings and four masks that find what ours find in these files: block ids, addresses, hexadecimal and decimal
numbers. Ours is the example `drain_speed`, with all built-in masks and parameters extracted (Drain3 extracts none here,
which is in its favour).

Each argument after the program is a log file with the number of header fields before the message and, after another colon,
what separates them where that is no space:

    pip install drain3
    cargo build --release -p faultline-parsers --example drain_speed
    python benches/peers/drain3_lines.py target/release/examples/drain_speed \\
        hdfs_2pct.log:5 BGL_first10000.log:9 Linux.log:5 'HealthApp_first20000.log:3:|'
"""

import argparse
import importlib.metadata
import logging
import pathlib
import statistics
import subprocess
import tempfile
import time

from drain3 import TemplateMiner
from drain3.masking import MaskingInstruction
from drain3.template_miner_config import TemplateMinerConfig

MASKS = [(r"blk_-?\d+", "BLK"), (r"/?(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?", "IP"), (r"\b0[xX][0-9a-fA-F]+\b", "HEX"),
         (r"\b\d+(?:\.\d+)?\b", "NUM")]


def messages(path: pathlib.Path, n_fields: int, separator: str, n_lines: int) -> list[str]:
    """The first lines of a file without their headers; none that is empty."""
    with path.open(encoding="utf-8", errors="replace") as file:
        fields = (line.rstrip("\r\n").split(separator if separator != " " else None, n_fields) for line in file)
        found = [line[n_fields] for line in fields if len(line) > n_fields and line[n_fields]]
    return found[:n_lines]


class Drain3:
    """Drain3 on some messages."""

    def __init__(self, lines: list[str]):
        self.name, self.lines = f"Drain3 {importlib.metadata.version('drain3')}", lines
        config = TemplateMinerConfig()
        config.masking_instructions = [MaskingInstruction(regex, name) for regex, name in MASKS]
        self.miner = TemplateMiner(config=config)
        self.round(0)

    def round(self, seconds: float) -> float:
        """Lines a CPU second; whole passes, one at least."""
        n, begin = 0, time.process_time()
        while True:
            for line in self.lines:
                self.miner.add_log_message(line)
            n += len(self.lines)
            spent = time.process_time() - begin
            if spent >= seconds:
                return n / spent


class Ours:
    """The example, kept running."""

    def __init__(self, program: str, lines: list[str]):
        self.name = "faultline"
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".log") as file:
            file.write("\n".join(lines))
            file.flush()
            self.process = subprocess.Popen([program, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.round(0.1)  # it has read the file now

    def round(self, seconds: float) -> float:
        """Lines a CPU second."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built example drain_speed")
    parser.add_argument("files", nargs="+", metavar="FILE:FIELDS[:SEPARATOR]")
    parser.add_argument("--lines", type=int, default=50_000, help="of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds of a round, at least")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    for file in args.files:
        path, n_fields, separator = (file.split(":") + [" "])[:3]
        lines = messages(pathlib.Path(path), int(n_fields), separator, args.lines)
        peers = [Drain3(lines), Ours(args.program, lines)]
        rates = {peer.name: [] for peer in peers}
        for _ in range(args.rounds):
            for peer in peers:
                rates[peer.name].append(peer.round(args.seconds))
        medians = [statistics.median(values) for values in rates.values()]
        print(f"{pathlib.Path(path).name}, {len(lines)} lines")
        for (name, values), median in zip(rates.items(), medians):
            spread = " ".join(f"{value:.0f}" for value in values)
            print(f"  {name:16} {median:9.0f} lines a CPU second (median of {spread})")
        print(f"  ours / Drain3: {medians[1] / medians[0]:.1f}")


if __name__ == "__main__":
    main()
